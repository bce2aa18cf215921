"""How much each patch of a clip matters to what a model makes of it, by one of three methods.

`rollout` and `gradient` read the attention of our vision transformers (`attention_maps`);
`occlusion` covers parts of the clip and asks any model again.

Shape letters: B batch, T frames, H×W pixels, h×w patches of a frame, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from timesformer.models.explain import attention_maps
from timesformer.models.network.vision_transformer import VisionTransformer
from timesformer.utils.errors import UserError
from timesformer.utils.logging import progress

METHODS = (*attention_maps.METHODS, "occlusion")
PATCH = 16  # pixels, of the maps of models that have no patches
WINDOW = 4  # a quarter of the frames, rows and columns is covered at a time


class Explanation(NamedTuple):
    """What matters to a model in some clips.

    Attributes:
        maps: (B, T, h, w), none negative, those of a clip adding up to 1.
        logits: of the clips (B, K).
        classes: those that are explained (B,).
    """

    maps: Tensor
    logits: Tensor
    classes: Tensor


def explain(
    model: nn.Module, clips: Tensor, method: str = "rollout", classes: Tensor | None = None
) -> Explanation:
    """Say which patches matter.

    Args:
        model: one of the registry, or any that maps clips to logits; it is put into eval mode for
            the time.
        clips: (B, 3, T, H, W), as `model.transform` makes them.
        method: `rollout`, which is about no class in particular; `gradient` or `occlusion`.
        classes: (B,); the predicted ones when None.

    Raises:
        ValueError: there is no such method, or the model has no attention that it could read.
        UserError: the model's scores aren't finite.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is none of {', '.join(METHODS)}")
    training = model.training
    model.eval()
    try:
        if method == "occlusion":
            return _finite(_by_occlusion(model, clips, classes))
        vit = vision_transformer_of(model, method)
        maps, logits = attention_maps.token_shares(vit, clips, method, classes)
        maps = maps.repeat_interleave(clips.shape[2] // maps.shape[1], dim=1)  # tubelets
        chosen = logits.argmax(1) if classes is None else classes
        return _finite(Explanation(_shares(maps), logits, chosen))
    finally:
        model.train(training)


def vision_transformer_of(model: nn.Module, what: str) -> VisionTransformer:
    """Return the network whose attention can be read.

    Raises:
        ValueError: there is none.
    """
    if (network := _network(model)) is None:
        raise ValueError(
            f"{what} reads the attention of a TimeSformer, which {type(model).__name__} is not; "
            "occlusion works with any model"
        )
    return network


def patch_size_of(model: nn.Module) -> int:
    """Side in pixels of what one place of a map stands for."""
    network = _network(model)
    return PATCH if network is None else network.patch_embed.patch_size


def _network(model: nn.Module) -> VisionTransformer | None:
    network = getattr(model, "model", model)
    return network if isinstance(network, VisionTransformer) else None


def _finite(found: Explanation) -> Explanation:
    """Refuse what NaN would make look like a map: everything alike, of class 0."""
    if not found.logits.isfinite().all():
        raise UserError("the model gives scores that aren't finite: its weights are no good")
    return found


@torch.no_grad()
def _by_occlusion(model: nn.Module, clips: Tensor, classes: Tensor | None) -> Explanation:
    """How much the probability of the class falls while a tube around a patch is grey."""
    B, _, T, H, W = clips.shape
    side = patch_size_of(model)
    sizes = (T, H // side, W // side)
    logits = model(clips)
    chosen = logits.argmax(1) if classes is None else classes
    before = logits.softmax(1).gather(1, chosen[:, None])[:, 0]
    drops = torch.zeros(B, *sizes, device=clips.device)
    times = torch.zeros(sizes, device=clips.device)
    grey = clips.mean((2, 3, 4), keepdim=True)
    for t, h, w in progress([*_windows(sizes)], "occlusion"):
        covered = clips.clone()
        rows, columns = (slice(side * place.start, side * place.stop) for place in (h, w))
        covered[:, :, t, rows, columns] = grey
        after = model(covered).softmax(1).gather(1, chosen[:, None])[:, 0]
        drops[:, t, h, w] += (before - after).view(B, 1, 1, 1)
        times[t, h, w] += 1
    return Explanation(_shares((drops / times).clamp(min=0)), logits, chosen)


def _windows(sizes: tuple[int, int, int]) -> Iterator[tuple[slice, slice, slice]]:
    """Windows that overlap by half and together cover a grid of these sizes."""
    starts, windows = [], [math.ceil(size / WINDOW) for size in sizes]
    for size, window in zip(sizes, windows, strict=True):
        step, last = max(1, window // 2), max(0, size - window)
        starts.append([min(i * step, last) for i in range(math.ceil(last / step) + 1)])
    for firsts in torch.cartesian_prod(*map(torch.tensor, starts)).tolist():
        t, h, w = (slice(i, i + n) for i, n in zip(firsts, windows, strict=True))
        yield t, h, w


def _shares(maps: Tensor) -> Tensor:
    """Make maps (B, …) add up to 1; where nothing matters, everything matters alike."""
    sums = maps.flatten(1).sum(1).view(-1, 1, 1, 1)
    return torch.where(sums > 0, maps / sums, torch.full_like(maps, 1 / maps[0].numel()))
