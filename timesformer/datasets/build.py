"""From a config to a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fvcore.common.config import CfgNode
from torch.utils.data import Dataset

from timesformer.clips.preprocessing import SAMPLINGS, Preprocessing
from timesformer.clips.sampling import SegmentSampler
from timesformer.clips.transform import EvalTransform
from timesformer.datasets import catalogue  # noqa: F401  (registers the data sets)
from timesformer.datasets.lists.fraction import choose
from timesformer.datasets.lists.records import Record, Records, class_counts, per_class
from timesformer.datasets.parts import (
    SPLITS,
    build_augment,
    build_normalize,
    build_transform,
    build_views,
    video_options,
)
from timesformer.datasets.registry import DATASET_REGISTRY
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.utils.errors import ConfigError
from timesformer.utils.logging import get_logger
from timesformer.utils.text import counted, not_known

__all__ = [
    "DATASET_REGISTRY",
    "SPLITS",
    "build_augment",
    "build_dataset",
    "build_given_videos",
    "build_normalize",
    "build_preprocessing",
    "build_split",
    "build_video_split",
    "build_views",
    "fraction_of",
    "video_options",
]

logger = get_logger(__name__)


def build_dataset(name: str, cfg: CfgNode, split: str) -> Dataset:
    """Make the data set registered as `name` (in any case) for train, val or test.

    Raises:
        ConfigError: there is no data set of that name, or it has one label a video where several
            are wanted; or DATA.FRACTION can't be taken of it.
    """
    dataset = _registered(name, split)(cfg, split)
    records: Sequence[Record] = getattr(dataset, "records", ())
    if cfg.DATA.MULTI_LABEL and len(records) and isinstance(records[0].label, int):
        raise ConfigError(
            f"DATA.MULTI_LABEL True, but videos of {name} have one label each: set it to False, "
            "or use kinetics, whose lists may have several"
        )
    if split == "train" and cfg.DATA.FRACTION < 1:
        _take_fraction(dataset, name, cfg)
    return dataset


def _take_fraction(dataset: Dataset, name: str, cfg: CfgNode) -> None:
    """Leave a training set DATA.FRACTION of its videos, which its `index` counts from then on."""
    if not isinstance(dataset, VideoDataset):
        raise ConfigError(f"DATA.FRACTION is for data sets of video files, which {name} isn't")
    whole = dataset.records
    if not len(whole):
        return  # which the loader complains of
    kept = fraction_of(whole, cfg)
    if isinstance(whole, Records):
        dataset.records = whole.take(kept)
    else:
        dataset.records = [whole[i] for i in kept]
    least, middle, most = per_class(class_counts(dataset.records, cfg.MODEL.NUM_CLASSES))
    logger.info(
        "DATA.FRACTION %g: %d of %s for training, %d to %d of each class, %g in the median",
        *(cfg.DATA.FRACTION, len(kept), counted(len(whole), "video"), least, most, middle),
    )


def fraction_of(records: Sequence[Record], cfg: CfgNode) -> list[int]:
    """Return which videos of a training list DATA.FRACTION takes."""
    return choose(records, cfg.DATA.FRACTION, cfg.DATA.PATH_PREFIX or cfg.DATA.PATH_TO_DATA_DIR)


def build_preprocessing(cfg: CfgNode, split: str) -> Preprocessing:
    """Return how frames become the clips that a model of this config is tested on.

    No list or video is read. A data set that doesn't say its `sampling` leaves that unknown.

    Args:
        cfg: the config.
        split: whose data set says how frames are chosen.

    Raises:
        ConfigError: as `build_dataset`, if there is no such data set.
    """
    data, crops = cfg.DATA, build_transform(cfg, "test")
    assert isinstance(crops, EvalTransform)
    sampling = getattr(_registered(cfg[_group(split)].DATASET, split), "sampling", None)
    by_rate = sampling == "rate"
    return Preprocessing(
        mean=tuple(data.MEAN),
        std=tuple(data.STD),
        channel_order="BGR" if data.REVERSE_INPUT_CHANNEL else "RGB",
        num_frames=data.NUM_FRAMES,
        sampling=sampling,
        sampling_rate=data.SAMPLING_RATE if by_rate else None,
        target_fps=data.TARGET_FPS if by_rate else None,
        clip_sampling=data.TEST_CLIP_SAMPLING if by_rate else None,
        short_side=crops.short_side,
        crop_size=crops.crop_size,
        num_clips=cfg.TEST.NUM_ENSEMBLE_VIEWS,
        num_crops=cfg.TEST.NUM_SPATIAL_CROPS,
        ensemble=data.ENSEMBLE_METHOD,
        multi_label=data.MULTI_LABEL,
    )


def build_split(cfg: CfgNode, split: str) -> Dataset:
    """Make a split's data set: TEST.DATASET for test, TRAIN.DATASET for train and val.

    Raises:
        ConfigError: as `build_dataset`.
    """
    return build_dataset(cfg[_group(split)].DATASET, cfg, split)


def build_video_split(cfg: CfgNode, split: str) -> VideoDataset:
    """Make a split's data set, which has to be one of video files.

    Raises:
        ConfigError: as `build_dataset`, or it isn't.
    """
    dataset = build_split(cfg, split)
    if not isinstance(dataset, VideoDataset):
        group = _group(split)
        raise ConfigError(
            f"{group}.DATASET {cfg[group].DATASET!r} is not a data set of video files"
        )
    return dataset


def build_given_videos(cfg: CfgNode, records: Sequence[Record]) -> VideoDataset:
    """Make a test set of given videos, of which clips are made as TEST.DATASET makes them.

    Neither its lists nor class names are read.

    Raises:
        ConfigError: as `build_dataset`; or it chooses frames in a way of its own, or with
            DATA.TRIM_TO_SEGMENT by its annotations.
    """
    name, cfg = cfg.TEST.DATASET, cfg.clone()
    cfg.DATA.CLASS_NAMES = cfg.DATA.PATH_PREFIX = cfg.DATA.PATH_TO_DATA_DIR = ""
    options = video_options(cfg, "test")
    sampling = getattr(_registered(name, "test"), "sampling", None)
    if cfg.DATA.TRIM_TO_SEGMENT or sampling not in SAMPLINGS:
        raise ConfigError(f"TEST.DATASET {name!r}: its clips can't be told from the videos alone")
    if sampling == "segments":
        options["sampler"] = SegmentSampler(cfg.DATA.NUM_FRAMES)
    return VideoDataset(records, **options)


def _registered(name: str, split: str) -> Callable[[CfgNode, str], Dataset]:
    """Return the entry of the registry that is called `name`, in any case."""
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is none of {', '.join(SPLITS)}")
    known = {registered.lower(): entry for registered, entry in DATASET_REGISTRY}
    if name.lower() not in known:
        names = sorted(registered for registered, _ in DATASET_REGISTRY)
        raise ConfigError(not_known(f"{_group(split)}.DATASET", name, names))
    return known[name.lower()]


def _group(split: str) -> str:
    return "TEST" if split == "test" else "TRAIN"
