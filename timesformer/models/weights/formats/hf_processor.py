"""What Hugging Face's processors say of a model's input, and how to say it to them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from timesformer.clips.preprocessing import OF_TESTS
from timesformer.models.weights.formats.hugging_face import class_names, multi_label

PROCESSORS = (
    ("processor_config.json", "video_processor"),
    ("processor_config.json", "image_processor"),
    ("video_preprocessor_config.json", None),
    ("preprocessor_config.json", None),
)
"""Where `transformers` keeps the processor's config, first things first: file, and key in it."""

BILINEAR = 2  # PIL's number

_OURS = (
    *("num_frames", "sampling", "sampling_rate", "target_fps"),
    *OF_TESTS,
    "channel_order",
)


def to_processor(preprocessing: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    """preprocessor_config.json: resize, centre crop, /255, normalise; RGB, as theirs always is.

    What theirs has no word for, how frames are chosen and that the kernels are for RGB, stands
    under "timesformer".
    """
    crop_size = preprocessing.get("crop_size", image_size)
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": preprocessing.get("short_side", crop_size)},
        "resample": BILINEAR,
        "do_center_crop": True,
        "crop_size": {"height": crop_size, "width": crop_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing["mean"]),
        "image_std": list(preprocessing["std"]),
        "timesformer": {name: preprocessing[name] for name in _OURS if name in preprocessing},
    }


def _takes_bgr(config: Mapping[str, Any]) -> bool:
    """Tell whether a config.json is that of Something-Something V2, by its 174 labels.

    The published SSv2 models take BGR, and converting them for `transformers` only renamed weights.
    """
    names = class_names(config)
    return len(names) == 174 and sum("something" in name.lower() for name in names) > 87


def from_processor(
    processor: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return what ours calls preprocessing; None if the file doesn't say mean and std.

    Args:
        processor: their processor's config.
        config: their config.json.
    """
    if (statistics := _statistics(processor)) is None:
        return None
    flipped = processor.get("do_flip_channel_order")
    found: dict[str, Any] = {**statistics, "channel_order": "BGR" if flipped else "RGB"}
    ours = processor.get("timesformer")
    side, crop = _side(processor.get("size"), "shortest_edge"), processor.get("crop_size")
    if side and processor.get("do_resize", True):
        found["short_side"] = side
    if isinstance(crop, Mapping) and crop.get("height") != crop.get("width"):
        crop = None  # no square
    if (crop := _side(crop, "height")) and processor.get("do_center_crop", True):
        found["crop_size"] = crop
    if isinstance(ours, Mapping):
        found |= {name: ours[name] for name in _OURS if name in ours}
    elif _takes_bgr(config):
        found["channel_order"] = "BGR"
    if (several := multi_label(config)) is not None:  # their training keeps it, and no other file
        found["multi_label"] = several
    return found


def otherwise(processor: Mapping[str, Any]) -> str:
    """Return what theirs does to the shape of frames that isn't done here, or ""."""
    size, crop = processor.get("size"), processor.get("crop_size")
    side = _side(size, "shortest_edge")
    told = []
    if not processor.get("do_resize", True):
        told.append("do_resize is false, and here the short side is resized to what the model sees")
    else:
        if isinstance(size, Mapping) and not side:
            told.append(f"size {dict(size)}, whatever a frame's shape, and here its short side is "
                        "resized and a square cut")  # fmt: skip
        if processor.get("resample", BILINEAR) != BILINEAR:
            told.append(f"resample {processor['resample']}, and here it is bilinear")
    sides = dict(crop) if isinstance(crop, Mapping) else {}
    if processor.get("do_center_crop", True) and sides.get("height") != sides.get("width"):
        told.append(f"crop_size {sides}, and here it is the square that the model takes")
    return "; ".join(told)


def _side(size: Any, name: str) -> int | None:
    """Read a size of theirs, which older versions wrote as one number."""
    return size.get(name) if isinstance(size, Mapping) else size


def _statistics(processor: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return mean and std for pixels in [0, 1], whatever theirs are for; None: they aren't said.

    Theirs computes (pixel · rescale_factor - offset - mean) / std for pixels up to 255.
    """
    mean, std = processor.get("image_mean"), processor.get("image_std")
    if not processor.get("do_normalize", True):
        mean, std = [0.0] * 3, [1.0] * 3
    elif not mean or not std:
        return None
    factor, offset = 1.0, 0.0
    if processor.get("do_rescale", True):
        factor = processor.get("rescale_factor", 1 / 255)
        offset = 1.0 if processor.get("offset") else 0.0
    scale = factor * 255
    if math.isclose(scale, 1) and not offset:
        return {"mean": list(mean), "std": list(std)}
    return {"mean": [(m + offset) / scale for m in mean], "std": [s / scale for s in std]}
