"""Kinetics, and any data set in its format: lists of videos with labels."""

from __future__ import annotations

from pathlib import Path

from fvcore.common.config import CfgNode

from timesformer.datasets.lists.rows import read_list
from timesformer.datasets.parts import video_options
from timesformer.datasets.registry import DATASET_REGISTRY
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.utils.files import is_file


@DATASET_REGISTRY.register()
class Kinetics(VideoDataset):
    """Videos of `DATA.PATH_TO_DATA_DIR/{train,val,test}.csv`, sampled at a constant frame rate.

    Where there is no such file, the list is the `.txt` of the same name. Rows are `path label` or
    one of the other forms in `timesformer.datasets.lists.rows`.
    """

    def __init__(self, cfg: CfgNode, mode: str) -> None:
        """Read the list; no video is touched.

        Args:
            cfg: reads DATA.*, TEST.*, AUG.*, MODEL.NUM_CLASSES and RNG_SEED.
            mode: train, val or test.

        Raises:
            AnnotationError: the list is missing or malformed.
        """
        path = Path(cfg.DATA.PATH_TO_DATA_DIR) / f"{mode}.csv"
        if not is_file(path) and is_file(path.with_suffix(".txt")):
            path = path.with_suffix(".txt")
        options = video_options(cfg, mode)
        shards = options["reader"].shards
        records = read_list(
            path,
            cfg.MODEL.NUM_CLASSES,
            separator=cfg.DATA.PATH_LABEL_SEPARATOR,
            prefix=cfg.DATA.PATH_PREFIX or (shards.root if shards else ""),
            class_names=options["class_names"],
            multi_label=cfg.DATA.MULTI_LABEL,
        )
        super().__init__(records, **options)
