"""Fitting weights of other sizes, and of image models, to a `VisionTransformer`.

Every step notes in `fate` what it did to which weight; what doesn't fit stays as it is, and the
caller reports it. Shape letters: D width, P patch side, t frames of a tubelet, N patches of a
frame, T frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import resample_patch_embed
from torch import Tensor

from timesformer.models.network.pos_embed import resize_pos_embed, resize_time_embed
from timesformer.models.weights.describe import PATCH, new_parts
from timesformer.models.weights.formats import IGNORED

StateDict = dict[str, Tensor]
Fate = dict[str, list[str]]


@dataclass(frozen=True)
class Resizing:
    """How weights for other sizes are fitted.

    Attributes:
        pos_embed: "bicubic", "bilinear" or "legacy", see `resize_pos_embed`.
        time_embed: "nearest" or "linear".
        tubelet: how a patch kernel of an image model becomes one of t frames (ViViT, arXiv
            2103.15691, §3.4): "central" puts it at frame t // 2 and zeros elsewhere, "average"
            puts 1/t of it at every frame. A still video gives the image model's tokens either way.
    """

    pos_embed: str = "bicubic"
    time_embed: str = "nearest"
    tubelet: str = "central"

    def __post_init__(self) -> None:
        if self.tubelet not in ("central", "average"):
            raise ValueError(f"unknown tubelet_init {self.tubelet!r}: central or average")


def adapt(state: StateDict, vit: Any, fate: Fate, resizing: Resizing) -> StateDict:
    """Weights with native names -> those for `vit`, as far as they can be fitted.

    Args:
        state: what a file holds, with the names of `VisionTransformer`.
        vit: the `VisionTransformer` they are for.
        fate: by field of `LoadReport`, names of weights; added to.
        resizing: how sizes are fitted.

    Raises:
        ValueError: if a pos_embed isn't for a square grid and has to be resized.
    """
    own = vit.state_dict()
    fate["ignored"] += [key for key in state if key.startswith(IGNORED)]
    state = {key: value for key, value in state.items() if not key.startswith(IGNORED)}
    start = _lacks_new_parts(state, vit)
    if start:
        state = _fit_cls(state, vit, own, fate)
    _fit_patch(state, own, fate, resizing.tubelet)
    if _longer_or_shorter("pos_embed", state, own):
        prefix_tokens = vit.num_prefix_tokens
        resized = resize_pos_embed(
            state["pos_embed"].float(),
            vit.patch_embed.grid_size,
            resizing.pos_embed,
            prefix_tokens=prefix_tokens,
        )
        _note_resized("pos_embed", resized, state, fate)
    if _longer_or_shorter("time_embed", state, own):
        frames = own["time_embed"].shape[1]
        resized = resize_time_embed(state["time_embed"].float(), frames, resizing.time_embed)
        _note_resized("time_embed", resized, state, fate)
    state = drop_other_head(state, own, "head", fate)
    return state | _image_start(state, vit, own, fate) if start else state


def _note_resized(key: str, value: Tensor, state: StateDict, fate: Fate) -> None:
    state[key] = value
    if key not in fate["resized"]:
        fate["resized"].append(key)


def _lacks_new_parts(state: StateDict, vit: Any) -> bool:
    """Whether the file has none of what the scheme adds to an image ViT.

    With some of it, it is part of a video model: what it lacks is an error, not a start.
    """
    new = {part for block in vit.blocks for part in new_parts(type(block))}
    return all(new.isdisjoint(key.split(".")) for key in state if key.startswith("blocks."))


def _longer_or_shorter(key: str, state: StateDict, own: Mapping[str, Tensor]) -> bool:
    """Whether an embedding (1, L, D) differs from the model's in its length L alone."""
    if key not in state or key not in own:
        return False
    length, own_length = state[key].shape[1:2], own[key].shape[1:2]
    return length != own_length and state[key].shape[::2] == own[key].shape[::2]


def _fit_cls(state: StateDict, vit: Any, own: Mapping[str, Tensor], fate: Fate) -> StateDict:
    """Image weights with CLS for a model without, or the other way; or one without positions."""
    state = dict(state)
    has_cls, wants_cls = "cls_token" in state, vit.num_prefix_tokens == 1
    if "pos_embed" in state and "pos_embed" not in own:
        fate["unexpected"].append("pos_embed")
        del state["pos_embed"]
    pos_embed = state.get("pos_embed")
    if pos_embed is not None and (
        pos_embed.ndim != 3 or pos_embed.shape[::2] != (1, vit.embed_dim)
    ):
        return state  # not a pos_embed for this model: reported as it is
    if has_cls and not wants_cls:
        fate["unexpected"].append("cls_token")
        del state["cls_token"]
        if pos_embed is not None:
            _note_resized("pos_embed", pos_embed[:, 1:], state, fate)
    elif wants_cls and not has_cls and pos_embed is not None and _is_square(pos_embed.shape[1]):
        # Models that pool their tokens have no CLS; a damaged file would still have its position.
        fate["missing"].append("cls_token")
        fresh = own["pos_embed"][:, :1].to(pos_embed)
        _note_resized("pos_embed", torch.cat([fresh, pos_embed], dim=1), state, fate)
    return state


def _is_square(number: int) -> bool:
    return math.isqrt(number) ** 2 == number


def _fit_patch(state: StateDict, own: Mapping[str, Tensor], fate: Fate, tubelet: str) -> None:
    """Patch kernel of other P resampled, of an image model inflated to t frames, or unflattened."""
    if PATCH not in state:
        return
    weight, wanted = state[PATCH], own[PATCH].shape  # (D, C, P, P) or (D, C, t, P, P)
    side = wanted[-1]
    if weight.ndim == 2:
        from_side = math.isqrt(weight.shape[1] // wanted[1])
        if weight.shape[1] == wanted[1] * from_side**2:
            weight = weight.reshape(-1, wanted[1], from_side, from_side)
    if weight.ndim not in (4, 5) or weight.shape[:2] != wanted[:2]:
        return
    if weight.shape[-1] != side and weight.shape[-1] == weight.shape[-2]:
        weight = weight.float()
        if weight.ndim == 4:
            weight = resample_patch_embed(weight, [side, side])
        else:
            frames = [resample_patch_embed(frame, [side, side]) for frame in weight.unbind(2)]
            weight = torch.stack(frames, dim=2)
    if weight.ndim == 4 and len(wanted) == 5:
        weight = _inflate(weight, wanted[2], tubelet)
    if weight.shape == wanted and weight.shape != state[PATCH].shape:
        _note_resized(PATCH, weight, state, fate)


def _inflate(kernel: Tensor, frames: int, how: str) -> Tensor:
    """(D, C, P, P) -> (D, C, t, P, P)."""
    repeated = kernel.unsqueeze(2).repeat(1, 1, frames, 1, 1)
    if how == "average":
        return repeated / frames
    central = torch.zeros(frames).index_fill(0, torch.tensor(frames // 2), 1)
    return repeated * central.to(kernel)[:, None, None]


def drop_other_head(
    state: StateDict, own: Mapping[str, Tensor], classifier: str, fate: Fate
) -> StateDict:
    """Without the file's head if it has one for other classes; the model's own then stays."""
    heads = [key for key in state if key.startswith(f"{classifier}.")]
    wanted = [key for key in own if key.startswith(f"{classifier}.")]
    if heads and wanted:
        classes = {state[key].shape[:1] for key in heads}
        if classes == {own[key].shape[:1] for key in wanted}:
            return state  # for as many classes, so it has to fit
    fate["unexpected"] += heads
    fate["missing"] += wanted
    return {key: value for key, value in state.items() if key not in heads}


def _image_start(state: StateDict, vit: Any, own: Mapping[str, Tensor], fate: Fate) -> StateDict:
    """What a file without this scheme's new submodules lacks: copies, and zeros to start from."""
    start: StateDict = {}
    if "time_embed" in own and "time_embed" not in state:
        if vit.time_embed_amplitude:
            fate["missing"].append("time_embed")
        else:
            start["time_embed"] = torch.zeros_like(own["time_embed"])
            fate["zeroed"].append("time_embed")
    for i, block in enumerate(vit.blocks):
        zeros = tuple(f"{name}." for name in block.zero_init)
        for inner in block.state_dict():
            part, _, tail = inner.partition(".")
            key, image = f"blocks.{i}.{inner}", f"blocks.{i}.{block.image_init.get(part)}.{tail}"
            if inner.startswith(zeros):
                start[key] = torch.zeros_like(own[key])
                fate["zeroed"].append(key)
            elif image in state:
                start[key] = state[image].clone()
                fate["copied"].append(key)
    return start
