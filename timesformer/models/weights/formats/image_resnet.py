"""ResNet-50 for images, of torchvision or timm, as the start of a 3D one (arXiv 1705.07750)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from timesformer.models.weights.formats.names import put

_BLOCK = re.compile(r"layer(\d)\.(\d+)\.(.+)")
_INNER = (
    ("downsample.0.", "branch1."),
    ("downsample.1.", "branch1_bn."),
    *((f"conv{i}.", f"branch2.{letter}.") for i, letter in enumerate("abc", start=1)),
    *((f"bn{i}.", f"branch2.{letter}_bn.") for i, letter in enumerate("abc", start=1)),
)
_OUTER = (
    ("conv1.", "s1.pathway0_stem.conv."),
    ("bn1.", "s1.pathway0_stem.bn."),
    ("fc.", "head.projection."),
)


def matches(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the names of a ResNet for images with bottlenecks."""
    weight = state.get("layer1.0.conv3.weight")
    return weight is not None and weight.ndim == 4


def to_native(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a 3D network: kernels are repeated over their frames and divided by these.

    So a still video gives, in every frame that no padding in time reaches, what the image network
    gives for the picture. (The other way to inflate, a kernel at the central frame and zeros
    beside it, would leave kernels in time without a gradient to tell their frames apart.)

    Args:
        state: those of the image network; a name that isn't known stays, as PySlowFast's do.
        own: those of the 3D network.

    Raises:
        ValueError: two entries have one name.
    """
    native: dict[str, Tensor] = {}
    for key, value in state.items():
        prefix, inner = "", key
        names: tuple[tuple[str, str], ...] = _OUTER
        if match := _BLOCK.fullmatch(key):
            prefix, inner = f"s{int(match[1]) + 1}.pathway0_res{match[2]}.", match[3]
            names = _INNER
        name = next((ours + inner[len(t) :] for t, ours in names if inner.startswith(t)), "")
        name = prefix + name if name else key
        if name in own and own[name].ndim == 5:
            if value.ndim == 4:
                value = value.unsqueeze(2)
            if value.ndim == 5 and value.shape[2] == 1:
                frames = own[name].shape[2]
                value = value.repeat(1, 1, frames, 1, 1) / frames
        put(native, name, value, key)
    return native
