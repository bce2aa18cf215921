"""PySlowFast's 3D CNNs, whose names are those of the models here: what its files say beside them.

Sizes that its published models share aren't in the weights: see `told`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

_STEM = "s1.pathway0_stem.conv.weight"
_OF_X3D = "s1.pathway0_stem.conv_xy.weight"
_FUSION = "s1_fuse.conv_f2s.weight"
_BLOCKS = {"s2": 3, "s3": 4, "s4": 6, "s5": 3}  # of a ResNet-50
_BGR = ("ssv2", "charades", "ptvssv2", "ptvcharades")  # data sets whose frames its loaders give so
_FRAMES = {"slowfast_r50": 32, "x3d_m": 16}


def matches(state: Mapping[str, Any]) -> bool:
    """Whether these are the names of PySlowFast's 3D CNNs."""
    return _STEM in state


def told(state: Mapping[str, Tensor], said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the knobs of `Architecture` that weights tell; clip sizes where nothing `said` them.

    Raises:
        ValueError: no model here is made of them.
    """
    model, channels = _model(state)
    sizes = {"num_frames": _FRAMES.get(model, 8), "img_size": 224}  # of the published models
    head = state.get("head.projection.weight")
    return {
        "model": model,
        "width": state[_STEM].shape[0] / channels,
        "num_classes": 0 if head is None else head.shape[0],
        **{name: said.get(name, size) for name, size in sizes.items()},
    }


def _model(state: Mapping[str, Tensor]) -> tuple[str, int]:
    """Return the name of the model, and the channels of its published stem."""
    if _OF_X3D in state:
        return "x3d_m", 24
    for stage, number in _BLOCKS.items():
        found = sum(f"{stage}.pathway0_res{i}.branch2.a.weight" in state for i in range(99))
        if found != number:
            raise ValueError(
                f"a 3D CNN of PySlowFast with {found} blocks in {stage}, where a ResNet-50 has "
                f"{number}: no model here is"
            )
    if _FUSION in state:
        return "slowfast_r50", 64
    frames = [state[f"s{i}.pathway0_res0.branch2.a.weight"].shape[2] for i in (2, 4)]
    if frames == [3, 3]:
        return "i3d_r50", 64
    if frames == [1, 3]:
        return "slow_r50", 64
    raise ValueError(f"a 3D CNN of PySlowFast with kernels of {frames} frames: no model here has")


def preprocessing(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Say what its model zoo's models take, where no config does."""
    return {"mean": [0.45] * 3, "std": [0.225] * 3, "channel_order": "RGB"}


def takes_bgr(config: Mapping[str, Any]) -> bool:
    """Tell from a run's config of PySlowFast whether its model saw BGR."""
    reverse = config.get("DATA.REVERSE_INPUT_CHANNEL") is True
    return (str(config.get("TRAIN.DATASET", "")).lower() in _BGR) != reverse
