"""PySlowFast's 3D CNNs, whose names are those of the models here: what its files say beside them.

Sizes that its published models share aren't in the weights: see `told`. Nor is all that a network
computes: see `check`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor

logger = logging.getLogger(__name__)

_STEM = "s1.pathway0_stem.conv.weight"
_FAST_STEM = "s1.pathway1_stem.conv.weight"
_OF_X3D = "s1.pathway0_stem.conv_xy.weight"
_FUSION = "s1_fuse.conv_f2s.weight"
_HEAD = "head.projection.weight"
_BLOCKS = (3, 4, 6, 3)  # of a ResNet-50, by stage
_BLOCKS_OF_X3D = (3, 5, 11, 7)  # of XS, S and M
_BGR = ("ssv2", "charades", "ptvssv2", "ptvcharades")  # data sets whose frames its loaders give so
_FRAMES = {"slowfast_r50": 32, "x3d_m": 16}
_ARCH = {"slowfast_r50": "slowfast", "slow_r50": "slow", "i3d_r50": "i3d", "x3d_m": "x3d"}
_OF_AVA = 80  # classes

# What a config may say that changes scores and no shape, and what the models here have.
_STAGES = {
    "RESNET.SPATIAL_STRIDES": (1, 2, 2, 2),
    "RESNET.SPATIAL_DILATIONS": (1, 1, 1, 1),
}


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
    if absent := sizes.keys() - said.keys():
        others = {
            "slow_r50": "; Slow 4×16, with 4 frames, has the same weights",
            "x3d_m": "; X3D-XS (4 frames of 160) and S (13 of 160) have the same weights",
        }
        logger.warning(
            "nothing says the clips of these weights: taken for %s, as %s has%s",
            " and ".join(f"{name} {sizes[name]}" for name in sorted(absent)),
            model,
            others.get(model, ""),
        )
    head = state.get(_HEAD)
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
    if _FUSION in state:
        return "slowfast_r50", 64
    frames = _kernels(state)
    if frames == [3, 3]:
        return "i3d_r50", 64
    if frames == [1, 3]:
        return "slow_r50", 64
    raise ValueError(
        f"a 3D CNN of PySlowFast with kernels of {frames} frames: no model here has; C2D and image "
        "networks are inflated where i3d_r50 or slow_r50 starts from them (load_pretrained)"
    )


def _kernels(state: Mapping[str, Tensor]) -> list[int]:
    """Return how many frames the first kernels of the first and third stage span."""
    shapes = [state[f"s{i}.pathway0_res0.branch2.a.weight"].shape for i in (2, 4)]
    return [shape[2] if len(shape) == 5 else 1 for shape in shapes]


def check(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Make sure that a model here computes what PySlowFast's does with these weights.

    Args:
        state: weights, with the names here.
        config: of the run, by full key; empty where the file has none.

    Raises:
        ValueError: saying what it has that no model here does.
    """
    _check_names(state)
    name = _name(state)
    if config.get("DETECTION.ENABLE") is True:
        raise ValueError(
            "its config says DETECTION.ENABLE: a detector of AVA's, which scores boxes"
        )
    for key, ours in _STAGES.items():
        theirs = config.get(key)
        if isinstance(theirs, list) and name != "x3d_m" and not _are(theirs, ours):
            raise ValueError(
                f"its config says {key} {theirs}: no model here has but {[[n] for n in ours]}"
            )
    wanted: dict[str, Any] = {"RESNET.STRIDE_1X1": False}
    if name == "slowfast_r50":
        wanted["SLOWFAST.ALPHA"] = 4
    if name:
        wanted["MODEL.ARCH"] = _ARCH[name]
    for key, value in wanted.items():
        if config.get(key, value) != value:
            raise ValueError(f"its config says {key} {config[key]}: {name} here has {value}")
    _warn(state, config)


def _warn(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Say where scores of crops larger than the trained ones are others than PySlowFast's."""
    larger = "give it crops of the trained size: of larger ones"
    if config.get("MODEL.HEAD_ACT") == "sigmoid":
        logger.warning(
            "the weights were trained for several labels (MODEL.HEAD_ACT sigmoid): %s, softmax is "
            "averaged here, and they have none",
            larger,
        )
    if config.get("MULTIGRID.SHORT_CYCLE") is True:
        logger.warning(
            "the weights were trained with multigrid's short cycle: %s, PySlowFast pools the "
            "whole, and windows of the trained size are averaged here",
            larger,
        )
    if not config and _HEAD in state and state[_HEAD].shape[0] == _OF_AVA:
        logger.warning(
            "the weights have %d classes, as AVA's detectors, and no config: a detector's scores "
            "of whole frames mean nothing",
            _OF_AVA,
        )


def _are(theirs: list[Any], ours: tuple[int, ...]) -> bool:
    """Whether a list has one number for each stage, and every pathway this one."""
    return len(theirs) == len(ours) and all(
        isinstance(stage, list) and set(stage) == {number}
        for stage, number in zip(theirs, ours, strict=True)
    )


def _name(state: Mapping[str, Tensor]) -> str:
    """Return the name of the model here, or "" for an image network, which is inflated."""
    return _model(state)[0] if not is_flat(state) else ""


def is_flat(state: Mapping[str, Any]) -> bool:
    """Whether these are PySlowFast's ResNet without kernels in time: C2D's, or an image network's.

    Such are its own of ImageNet, which it trains as 3D CNNs too.
    """
    return (
        matches(state)
        and not {_OF_X3D, _FUSION} & state.keys()
        and all(v.ndim == 4 or v.shape[2] == 1 for v in state.values() if v.ndim > 3)
    )


def _check_names(state: Mapping[str, Tensor]) -> None:
    """Tell by names and shapes which of PySlowFast's networks aren't here.

    Raises:
        ValueError: these are of one.
    """
    what = "a 3D CNN of PySlowFast or pytorchvideo"
    for part, means in (
        ("_nonlocal", "non-local blocks (NLN)"),
        ("detection_head.", "a detection head, which scores boxes"),
        (".branch2.b.conv_t.", "R(2+1)D's blocks, a kernel in space and one in time"),
        (".lin_5_bn.", "BN_LIN5"),
    ):
        if found := next((key for key in state if part in key), None):
            raise ValueError(f"{found}: weights of {what} with {means}: no model here has them")
    x3d = _OF_X3D in state
    network, blocks = ("an X3D-M", _BLOCKS_OF_X3D) if x3d else ("a ResNet-50", _BLOCKS)
    for stage, number in enumerate(blocks, start=2):
        found_ = sum(f"s{stage}.pathway0_res{i}.branch2.a.weight" in state for i in range(99))
        if found_ != number:
            raise ValueError(
                f"{what} with {found_} blocks in s{stage}, where {network} has {number}: no model "
                "here is"
            )
    middle = state.get("s2.pathway0_res0.branch2.b.weight")
    if not x3d and middle is not None and middle.shape[-3:] == (3, 3, 3):
        raise ValueError(f"{what} with kernels in time in its 3×3 layers (CSN): no model here is")
    if _FUSION in state and _FAST_STEM in state:
        frames, beta = state[_FUSION].shape[2], state[_STEM].shape[0] / state[_FAST_STEM].shape[0]
        ratio = state[_FUSION].shape[0] / state[_FUSION].shape[1]
        if (frames, beta, ratio) != (7, 8, 2):
            raise ValueError(
                f"a SlowFast with a fusion kernel of {frames} frames, BETA_INV {beta:g}, fusion "
                f"ratio {ratio:g}: here are 7, 8 and 2 (SlowFast 4×16, alpha 8, has 5 frames)"
            )


def preprocessing(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Say what its model zoo's models take, where no config does."""
    return {"mean": [0.45] * 3, "std": [0.225] * 3, "channel_order": "RGB"}


def takes_bgr(config: Mapping[str, Any]) -> bool:
    """Tell from a run's config of PySlowFast whether its model saw BGR."""
    reverse = config.get("DATA.REVERSE_INPUT_CHANNEL") is True
    return (str(config.get("TRAIN.DATASET", "")).lower() in _BGR) != reverse
