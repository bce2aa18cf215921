"""From a config to a data set. The config stops here: the parts take plain arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fvcore.common.config import CfgNode
from fvcore.common.registry import Registry
from torch.utils.data import Dataset

from timesformer.datasets.augment import ClipAugment, Normalize
from timesformer.datasets.reader import VideoReader
from timesformer.datasets.records import Record, read_class_names
from timesformer.datasets.sampling import RateSampler
from timesformer.datasets.transform import EvalTransform, TrainTransform
from timesformer.datasets.views import ViewGrid
from timesformer.utils.errors import ConfigError

DATASET_REGISTRY = Registry("DATASET")
DATASET_REGISTRY.__doc__ = """Classes or functions `(cfg, mode) -> Dataset`, mode train|val|test.

Items are `(inputs, label, index, meta)`; see `VideoDataset`, which most of them are.
"""

SPLITS = ("train", "val", "test")


def build_dataset(name: str, cfg: CfgNode, split: str) -> Dataset:
    """Make the data set registered as `name` (in any case) for train, val or test.

    Raises:
        ConfigError: there is no data set of that name, or it has one label a video where several
            are wanted.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is none of {', '.join(SPLITS)}")
    known = {registered.lower(): entry for registered, entry in DATASET_REGISTRY}
    if name.lower() not in known:
        key = "TEST.DATASET" if split == "test" else "TRAIN.DATASET"
        raise ConfigError(f"{key} {name!r} is not known; choose from {', '.join(sorted(known))}")
    dataset = known[name.lower()](cfg, split)
    records: Sequence[Record] = getattr(dataset, "records", ())
    if cfg.DATA.MULTI_LABEL and len(records) and isinstance(records[0].label, int):
        raise ConfigError(
            f"DATA.MULTI_LABEL True, but videos of {name} have one label each: set it to False, "
            "or use kinetics, whose lists may have several"
        )
    return dataset


def video_options(cfg: CfgNode, mode: str) -> dict[str, Any]:
    """Everything but the records that a `VideoDataset` takes from the config.

    A data set passes them on, changed where it differs: `VideoDataset(records, **(options | {…}))`.
    """
    data = cfg.DATA
    return {
        "sampler": build_rate_sampler(cfg, mode),
        "transform": build_transform(cfg, mode),
        "mode": mode,
        "views": build_views(cfg, mode),
        "class_names": read_class_names(data.CLASS_NAMES, cfg.MODEL.NUM_CLASSES),
        "normalize": build_normalize(cfg),
        "seed": cfg.RNG_SEED,
        "num_samples": data.NUM_SAMPLES,
        "num_classes": cfg.MODEL.NUM_CLASSES,
        "reader": VideoReader(data.DECODING_BACKEND, data.DECODE_TIMEOUT, data.FRAMES_FPS),
    }


def build_rate_sampler(cfg: CfgNode, mode: str) -> RateSampler:
    """Frames at DATA.SAMPLING_RATE; validation looks at the centre of a video."""
    data = cfg.DATA
    placement = data.TEST_CLIP_SAMPLING if mode == "test" else "center"
    return RateSampler(data.NUM_FRAMES, data.SAMPLING_RATE, data.TARGET_FPS, placement)


def build_views(cfg: CfgNode, mode: str) -> ViewGrid:
    """Clips × crops of TEST.*; one view for training and validation."""
    if mode != "test":
        return ViewGrid()
    return ViewGrid(cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS)


def build_transform(cfg: CfgNode, mode: str) -> TrainTransform | EvalTransform:
    """Random size, crop and flip for training; else centre crop, or three crops for a test."""
    data, aug = cfg.DATA, cfg.AUG
    low, high = data.TRAIN_JITTER_SCALES
    if mode == "train":
        return TrainTransform(
            jitter=(low, high),
            crop_size=data.TRAIN_CROP_SIZE,
            inverse=data.INV_UNIFORM_SAMPLE,
            flip=data.RANDOM_FLIP,
            resized_crop=(aug.CROP_SCALE, aug.CROP_RATIO) if aug.RESIZED_CROP else None,
        )
    crops = build_views(cfg, mode).num_crops
    # Three crops cover a video whose short side they fill; one is cut from a larger picture.
    short_side = data.TEST_CROP_SIZE if crops > 1 else max(low, data.TEST_CROP_SIZE)
    return EvalTransform(short_side, data.TEST_CROP_SIZE, crops)


def build_normalize(cfg: CfgNode) -> Normalize:
    """The input that the weights expect: DATA.MEAN, STD and REVERSE_INPUT_CHANNEL."""
    return Normalize(tuple(cfg.DATA.MEAN), tuple(cfg.DATA.STD), cfg.DATA.REVERSE_INPUT_CHANNEL)


def build_augment(cfg: CfgNode) -> ClipAugment:
    """What training does to a batch of clips on the device."""
    aug = cfg.AUG
    return ClipAugment(
        build_normalize(cfg),
        rand_augment=(aug.RAND_AUGMENT_OPS, aug.RAND_AUGMENT_MAGNITUDE),
        color_jitter=aug.COLOR_JITTER,
        erasing=aug.RANDOM_ERASING,
        seed=cfg.RNG_SEED,
    )
