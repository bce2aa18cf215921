"""Kinetics, and any data set in its format: `{train,val,test}.csv` with rows `path label`."""

from __future__ import annotations

from pathlib import Path

from fvcore.common.config import CfgNode

from timesformer.datasets.build import (
    DATASET_REGISTRY,
    build_rate_sampler,
    build_transform,
    build_views,
)
from timesformer.datasets.records import read_class_names, read_list
from timesformer.datasets.video_dataset import VideoDataset


@DATASET_REGISTRY.register()
class Kinetics(VideoDataset):
    """Videos of `DATA.PATH_TO_DATA_DIR/{mode}.csv`, sampled at a constant frame rate."""

    def __init__(self, cfg: CfgNode, mode: str) -> None:
        """Read the list; no video is touched.

        Args:
            cfg: reads DATA.*, TEST.*, MODEL.NUM_CLASSES and RNG_SEED.
            mode: train, val or test.

        Raises:
            AnnotationError: the list is missing or malformed.
        """
        data, classes = cfg.DATA, cfg.MODEL.NUM_CLASSES
        path = Path(data.PATH_TO_DATA_DIR) / f"{mode}.csv"
        super().__init__(
            records=read_list(path, classes, data.PATH_LABEL_SEPARATOR, data.PATH_PREFIX),
            sampler=build_rate_sampler(cfg, mode),
            transform=build_transform(cfg, mode),
            mode=mode,
            views=build_views(cfg, mode),
            class_names=read_class_names(data.CLASS_NAMES, classes),
            seed=cfg.RNG_SEED,
        )
