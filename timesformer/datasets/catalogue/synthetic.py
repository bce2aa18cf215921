"""Synthetic: generated videos whose classes differ only in the order of time.

`timesformer make-synthetic` writes them, docs/synthetic.md explains them.
"""

from __future__ import annotations

from pathlib import Path

from fvcore.common.config import CfgNode

from timesformer.datasets.lists.class_names import read_class_names
from timesformer.datasets.lists.rows import read_list
from timesformer.datasets.lists.text_file import NO_DATA_DIR
from timesformer.datasets.parts import video_options
from timesformer.datasets.registry import DATASET_REGISTRY
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.utils.errors import AnnotationError
from timesformer.utils.files import is_file

# What makes so many classes, where that isn't the usual kind.
_KINDS = {8: " --pairs 4", 16: " --kind static|temporal"}


@DATASET_REGISTRY.register()
class Synthetic(VideoDataset):
    """Lists as of Kinetics; class names lie beside them.

    Paths are relative to DATA.PATH_PREFIX, or else to the lists.
    """

    def __init__(self, cfg: CfgNode, mode: str) -> None:
        """Read the list; no video is touched.

        Args:
            cfg: reads DATA.*, TEST.*, AUG.*, MODEL.NUM_CLASSES and RNG_SEED.
            mode: train, val or test.

        Raises:
            AnnotationError: the videos haven't been made yet, or not all of them.
        """
        folder, classes = Path(cfg.DATA.PATH_TO_DATA_DIR), cfg.MODEL.NUM_CLASSES
        path = folder / f"{mode}.csv"
        if not is_file(path):
            make = f"timesformer make-synthetic{_KINDS.get(classes, '')} --output"
            advice = f"run `{make} {folder}`, or set DATA.PATH_TO_DATA_DIR to where they are"
            if folder == Path():
                advice = f"{NO_DATA_DIR}; `{make} FOLDER` makes them"
            raise AnnotationError(f"{path}: not there yet; {advice}")
        names = read_class_names(str(folder / "classes.txt"), classes)
        records = read_list(path, classes, prefix=cfg.DATA.PATH_PREFIX or str(folder))
        super().__init__(records, **(video_options(cfg, mode) | {"class_names": names}))
