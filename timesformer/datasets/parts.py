"""From a config to the parts of a data set. The config stops here: parts take plain arguments."""

from __future__ import annotations

from typing import Any

from fvcore.common.config import CfgNode

from timesformer.clips.augment import ClipAugment
from timesformer.clips.sampling import RateSampler, ViewGrid
from timesformer.clips.training import TrainTransform
from timesformer.clips.transform import EvalTransform, Normalize
from timesformer.config.multigrid import grids
from timesformer.datasets.lists.class_names import read_class_names
from timesformer.datasets.video.reader import VideoReader
from timesformer.datasets.video.shards import open_shards

SPLITS = ("train", "val", "test")


def video_options(cfg: CfgNode, mode: str) -> dict[str, Any]:
    """Everything but the records that a `VideoDataset` takes from the config.

    A data set passes them on, changed where it differs: `VideoDataset(records, **(options | {…}))`.

    Raises:
        ConfigError: the decoder isn't there, or there are other class names than classes.
        ShardsError: the videos are in shards, of which one is missing.
    """
    data = cfg.DATA
    reader = VideoReader(
        data.DECODING_BACKEND,
        data.DECODE_TIMEOUT,
        data.FRAMES_FPS,
        open_shards(data.PATH_PREFIX or data.PATH_TO_DATA_DIR),
    )
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
        "grids": grids(cfg) if mode == "train" else (),
        "reader": reader,
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
    published = data.TEST_CROP_SIZE if crops > 1 else max(low, data.TEST_CROP_SIZE)
    short_side = data.TEST_SHORT_SIDE or published
    return EvalTransform(short_side, data.TEST_CROP_SIZE, crops)


def build_normalize(cfg: CfgNode) -> Normalize:
    """Return the input that the weights expect: DATA.MEAN, STD and REVERSE_INPUT_CHANNEL."""
    return Normalize(tuple(cfg.DATA.MEAN), tuple(cfg.DATA.STD), cfg.DATA.REVERSE_INPUT_CHANNEL)


def build_augment(cfg: CfgNode) -> ClipAugment:
    """Return what training does to a batch of clips on the device."""
    aug = cfg.AUG
    return ClipAugment(
        build_normalize(cfg),
        rand_augment=(aug.RAND_AUGMENT_OPS, aug.RAND_AUGMENT_MAGNITUDE),
        color_jitter=aug.COLOR_JITTER,
        erasing=aug.RANDOM_ERASING,
        seed=cfg.RNG_SEED,
    )
