"""Fitting weights of other sizes, and of image models, to a `VisionTransformer`.

What doesn't fit stays as it is, and the caller reports it. Shape letters: D width, P patch side, t
frames of a tubelet, N patches of a frame, T frames.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from timesformer.config.allowed import CHOICES
from timesformer.models.lora import own_state
from timesformer.models.network.pos_embed import (
    POS_EMBED_MODES,
    TIME_EMBED_MODES,
    resize_pos_embed,
    resize_time_embed,
    sinusoidal_embed_2d,
)
from timesformer.models.weights.describe import ON_ANOTHER_LAYER, PATCH, unfit_head
from timesformer.models.weights.formats import IGNORED
from timesformer.utils.errors import ConfigError

StateDict = dict[str, Tensor]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resizing:
    """How weights for other sizes are fitted.

    Attributes:
        pos_embed: "bicubic", "bilinear", "nearest" or "legacy", see `resize_pos_embed`.
        time_embed: "nearest" or "linear".
        tubelet: how a patch kernel of an image model becomes one of t frames (ViViT, arXiv
            2103.15691, §3.4): "central" puts it at frame t // 2 and zeros elsewhere, "average"
            puts 1/t of it at every frame. A still video gives the image model's tokens either way.
        googles: weights are fitted as Google's own code fits those of its layout: patch kernels of
            another P are resampled for bilinear images, not for bicubic ones with antialias, and
            positions that aren't stored are sines.
    """

    pos_embed: str = "bicubic"
    time_embed: str = "nearest"
    tubelet: str = "central"
    googles: bool = False

    def __post_init__(self) -> None:
        for what, known in (
            ("pos_embed", POS_EMBED_MODES),
            ("time_embed", TIME_EMBED_MODES),
            ("tubelet", CHOICES["TIMESFORMER.TUBELET_INIT"]),
        ):
            if (how := getattr(self, what)) not in known:
                raise ConfigError(f"unknown way to fit {what}, {how!r}: {', '.join(known)}")


@dataclass(frozen=True)
class LoadReport:
    """What became of every weight; names are those of the `VisionTransformer`, or of other models.

    A weight of the model is in exactly one of `loaded`, `resized`, `copied`, `zeroed`, `missing`.

    Attributes:
        source: what the weights were read from.
        loaded: taken as they are.
        resized: taken, and fitted to another size.
        copied: made from other weights of the file (temporal from spatial attention).
        zeroed: not in an image model, and set to zero so that training starts there.
        missing: not in the file and left as initialised (the head, where the file has none or one
            for other classes; time_embed that starts as sines; CLS, where the file's model pools
            instead; what stands around the image part of a model).
        unexpected: in the file, with no place in the model (a head for other classes; CLS and its
            position, for a model without).
        ignored: in the file, and nothing that a video model needs (pre_logits, counters).
    """

    source: str = ""
    loaded: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    copied: tuple[str, ...] = ()
    zeroed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line of counts, with names where they are few."""
        parts = [f"loaded {len(self.loaded)} weights from {self.source}"]
        for what in fields(self)[2:]:
            if names := getattr(self, what.name):
                shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
                parts.append(f"{what.name} {len(names)} ({shown})")
        return "; ".join(parts)


def adapt(
    found: Mapping[str, Tensor], vit: Any, resizing: Resizing
) -> tuple[StateDict, LoadReport]:
    """Fit weights with native names to a model, as far as they can be fitted.

    Args:
        found: what a file holds, with the names of `VisionTransformer`.
        vit: the `VisionTransformer` they are for.
        resizing: how sizes are fitted.

    Returns:
        Weights for the model, and what was done to which; both arguments are as they were.

    Raises:
        ValueError: if a pos_embed isn't for a square grid and has to be resized.
    """
    fitting = _Fitting(found, vit)
    starts_here = fitting.lacks_new_parts()
    if resizing.googles:
        fitting.add_sines()
    if starts_here:
        fitting.fit_cls()
    fitting.fit_patch(resizing)
    fitting.fit_positions(resizing)
    fitting.fit_head()
    if starts_here:
        fitting.start_new_parts()
    names: dict[str, Any] = {what: tuple(names) for what, names in fitting.fate.items()}
    return fitting.state, LoadReport(**names)


class _Fitting:
    """A copy of the weights under way to a model, and what became of which.

    Args:
        found: what a file holds.
        vit: the `VisionTransformer`.
    """

    def __init__(self, found: Mapping[str, Tensor], vit: Any) -> None:
        self.vit = vit
        self.own: dict[str, Tensor] = own_state(vit)
        self.state = {k: value for k, value in found.items() if not k.startswith(IGNORED)}
        self.fate: defaultdict[str, list[str]] = defaultdict(list)  # by field of LoadReport
        self.fate["ignored"] += [key for key in found if key.startswith(IGNORED)]
        # What the file's head was trained on, if it isn't what this model pools.
        self.head_is_of = ON_ANOTHER_LAYER if unfit_head(found) else ""

    def resize(self, key: str, value: Tensor) -> None:
        """Take another value for a weight."""
        self.state[key] = value
        if key not in self.fate["resized"]:
            self.fate["resized"].append(key)

    def lacks_new_parts(self) -> bool:
        """Tell whether the file has none of what the scheme adds to an image ViT.

        With some of it, it is part of a video model: what it lacks is an error, not a start.
        """
        new = {part for block in self.vit.blocks for part in block.new_parts()}
        return all(new.isdisjoint(k.split(".")) for k in self.state if k.startswith("blocks."))

    def leave_out(self, keys: Sequence[str]) -> None:
        """Drop weights that the model has no place for."""
        self.fate["unexpected"] += keys
        self.state = {key: value for key, value in self.state.items() if key not in keys}

    def add_sines(self) -> None:
        """Compute positions that a file of Google's doesn't store, for the model's own grid."""
        if "pos_embed" in self.own and "pos_embed" not in self.state:
            grid = self.vit.patch_embed.grid_size
            self.state |= with_sines(self.state, grid, self.vit.embed_dim)

    def fit_cls(self) -> None:
        """Fit image weights with CLS to a model without, or the other way; drop positions too."""
        has_cls, wants_cls = "cls_token" in self.state, self.vit.num_prefix_tokens == 1
        if "pos_embed" in self.state and "pos_embed" not in self.own:
            self.leave_out(["pos_embed"])
        pos_embed = self.state.get("pos_embed")
        if pos_embed is not None and (
            pos_embed.ndim != 3 or pos_embed.shape[::2] != (1, self.vit.embed_dim)
        ):
            return  # not a pos_embed for this model: reported as it is
        if has_cls and not wants_cls:
            self.leave_out(["cls_token"])
            self.head_is_of = "CLS, and this model averages its patches"
            if pos_embed is not None:
                self.resize("pos_embed", pos_embed[:, 1:])
        elif wants_cls and not has_cls and pos_embed is not None and self._is_grid(pos_embed):
            # Models that pool their tokens have no CLS; a damaged file would still have its
            # position.
            self.fate["missing"].append("cls_token")
            # Their head was trained on the tokens' mean.
            self.leave_out([key for key in self.state if key.startswith("head.")])
            fresh = self.own["pos_embed"][:, :1].to(pos_embed)
            self.resize("pos_embed", torch.cat([fresh, pos_embed], dim=1))

    def _is_grid(self, pos_embed: Tensor) -> bool:
        """Tell whether there are as many positions as patches in a square, or in this model."""
        number = pos_embed.shape[1]
        return math.isqrt(number) ** 2 == number or number == self.vit.patch_embed.num_patches

    def fit_patch(self, how: Resizing) -> None:
        """Resample a patch kernel of other P, inflate an image model's, unflatten a flat one."""
        if PATCH not in self.state:
            return
        weight, wanted = self.state[PATCH], self.own[PATCH].shape  # (D, C, P, P) or (D, C, t, P, P)
        side = wanted[-1]
        if weight.ndim == 2:
            from_side = math.isqrt(weight.shape[1] // wanted[1])
            if weight.shape[1] == wanted[1] * from_side**2:
                weight = weight.reshape(-1, wanted[1], from_side, from_side)
        if weight.ndim not in (4, 5) or weight.shape[:2] != wanted[:2]:
            return
        if weight.shape[-1] != side and weight.shape[-1] == weight.shape[-2]:
            weight = _resample(weight.float(), side, how.googles)
        if weight.ndim == 4 and len(wanted) == 5:
            weight = _inflate(weight, wanted[2], how.tubelet)
        if weight.shape == wanted and weight.shape != self.state[PATCH].shape:
            self.resize(PATCH, weight)

    def fit_positions(self, how: Resizing) -> None:
        """Resize pos_embed to the model's grid, and time_embed to its frames."""
        if self._longer_or_shorter("pos_embed"):
            resized = resize_pos_embed(
                self.state["pos_embed"].float(),
                self.vit.patch_embed.grid_size,
                how.pos_embed,
                prefix_tokens=self.vit.num_prefix_tokens,
            )
            self.resize("pos_embed", resized)
        if self._longer_or_shorter("time_embed"):
            frames = self.own["time_embed"].shape[1]
            stored = self.state["time_embed"].float()
            self.resize("time_embed", resize_time_embed(stored, frames, how.time_embed))

    def _longer_or_shorter(self, key: str) -> bool:
        """Tell whether an embedding (1, L, D) differs from the model's in its length L alone."""
        if key not in self.state or key not in self.own:
            return False
        theirs, ours = self.state[key].shape, self.own[key].shape
        return theirs[1:2] != ours[1:2] and theirs[::2] == ours[::2]

    def fit_head(self) -> None:
        """Leave out a head for other classes, or one that reads other than what the model pools."""
        theirs, ours = other_head(self.state, self.own, "head")
        if self.head_is_of and not theirs:
            theirs, ours = (
                [k for k in kept if k.startswith("head.")] for kept in (self.state, self.own)
            )
            if theirs and ours:
                logger.warning(
                    "the head of the file is left out: it was trained on %s; the head is fresh, so "
                    "scores mean nothing before training",
                    self.head_is_of,
                )
        self.leave_out(theirs)
        self.fate["missing"] += ours

    def start_new_parts(self) -> None:
        """Add what an image model lacks of the scheme: copies, and zeros to start from."""
        own, start = self.own, {}
        if "time_embed" in own and "time_embed" not in self.state:
            if self.vit.time_embed_amplitude:
                self.fate["missing"].append("time_embed")
            else:
                start["time_embed"] = torch.zeros_like(own["time_embed"])
                self.fate["zeroed"].append("time_embed")
        for i, block in enumerate(self.vit.blocks):
            zeros = tuple(f"{name}." for name in block.zero_init)
            for inner in own_state(block):
                part, _, tail = inner.partition(".")
                key = f"blocks.{i}.{inner}"
                image = f"blocks.{i}.{block.image_init.get(part)}.{tail}"
                if inner.startswith(zeros):
                    start[key] = torch.zeros_like(own[key])
                    self.fate["zeroed"].append(key)
                elif image in self.state:
                    start[key] = self.state[image].clone()
                    self.fate["copied"].append(key)
        self.state |= start


def other_head(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], classifier: str
) -> tuple[list[str], list[str]]:
    """Name the file's head and the model's, if the file's is missing or for other classes."""
    theirs = [key for key in state if key.startswith(f"{classifier}.")]
    ours = [key for key in own if key.startswith(f"{classifier}.")]
    if theirs and ours:
        classes = {state[key].shape[:1] for key in theirs}
        if classes == {own[key].shape[:1] for key in ours}:
            return [], []  # for as many classes, so it has to fit
    return theirs, ours


def with_counters(state: StateDict, own: Mapping[str, Tensor]) -> StateDict:
    """Return weights with the counters of BatchNorm, at 0, where there are none.

    Files of torch before 0.4.1, as torchvision's first ResNets, and other programs' have none.
    """
    counter = ".num_batches_tracked"
    if any(key.endswith(counter) for key in state):
        return state  # one that is missing then is damage
    zero = {k: torch.zeros_like(v) for k, v in own.items() if k.endswith(counter)}
    return {**state, **{k: v for k, v in zero.items() if k.replace(counter, ".weight") in state}}


def with_sines(state: StateDict, grid: tuple[int, int], width: int) -> StateDict:
    """Return weights with the positions that big_vision computes (posemb "sincos2d").

    CLS, which joins its tokens after them, gets one of zero.
    """
    if width % 4 or width < 8:
        return state  # big_vision has none of that width: reported as missing
    logger.info("positions aren't stored: they are sines, as big_vision computes them (sincos2d)")
    sines = sinusoidal_embed_2d(grid, width)
    if "cls_token" in state:
        sines = torch.cat([torch.zeros(1, 1, width), sines], dim=1)
    return state | {"pos_embed": sines}


def _resample(kernel: Tensor, side: int, googles: bool) -> Tensor:
    """(D, C, P, P) or (D, C, t, P, P) -> the same of another side (FlexiViT, arXiv 2212.08013)."""
    from timm.layers import resample_patch_embed  # takes seconds, and few need it

    how: dict[str, Any] = {"interpolation": "bilinear", "antialias": False} if googles else {}
    if kernel.ndim == 4:
        return resample_patch_embed(kernel, [side, side], **how)
    frames = [resample_patch_embed(frame, [side, side], **how) for frame in kernel.unbind(2)]
    return torch.stack(frames, dim=2)


def _inflate(kernel: Tensor, frames: int, how: str) -> Tensor:
    """(D, C, P, P) -> (D, C, t, P, P)."""
    repeated = kernel.unsqueeze(2).repeat(1, 1, frames, 1, 1)
    if how == "average":
        return repeated / frames
    central = torch.zeros(frames).index_fill(0, torch.tensor(frames // 2), 1)
    return repeated * central.to(kernel)[:, None, None]
