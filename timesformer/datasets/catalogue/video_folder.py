"""A folder for each class, with videos in it; no lists needed."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePath

from fvcore.common.config import CfgNode

from timesformer.datasets.lists.records import Records
from timesformer.datasets.lists.row_paths import VIDEO_SUFFIXES
from timesformer.datasets.parts import SPLITS, video_options
from timesformer.datasets.registry import DATASET_REGISTRY
from timesformer.datasets.video.frame_folder import SUFFIXES as IMAGE_SUFFIXES
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.utils.errors import ConfigError
from timesformer.utils.files import is_folder
from timesformer.utils.logging import get_logger
from timesformer.utils.text import counted

logger = get_logger(__name__)

STAND_IN = {"val": "test", "test": "val"}

Tree = dict[str, list[str]]  # class -> its videos, as posix paths within the folder of the class


@DATASET_REGISTRY.register()
class VideoFolder(VideoDataset):
    """Videos `root/{train,val,test}/CLASS/…`, or `root/CLASS/…` split by DATA.FOLDER_SPLIT.

    `root` is DATA.PATH_TO_DATA_DIR. A video is a file at any depth in the folder of its class, or a
    folder of images. Labels number the names of the classes in sorted order, or in the order of
    DATA.CLASS_NAMES. Where val or test has no videos, the other one stands in for it.
    """

    def __init__(self, cfg: CfgNode, mode: str) -> None:
        """List the folders; no video is touched.

        Args:
            cfg: reads DATA.*, TEST.*, AUG.*, MODEL.NUM_CLASSES and RNG_SEED.
            mode: train, val or test.

        Raises:
            ConfigError: there are no videos for `mode`, or another number of classes.
        """
        root, options = Path(cfg.DATA.PATH_TO_DATA_DIR), video_options(cfg, mode)
        if not cfg.DATA.PATH_TO_DATA_DIR:
            raise ConfigError("DATA.PATH_TO_DATA_DIR is empty: set it to the folder of the videos")
        if not is_folder(root):
            raise ConfigError(f"DATA.PATH_TO_DATA_DIR: there is no folder {str(root)!r:.500}")
        presplit, ignored = is_folder(root / "train"), 0
        splits: dict[str, Tree] = {}
        if presplit:
            for split in SPLITS:
                splits[split], others = find_videos(root / split)
                ignored += others
        else:
            tree, ignored = find_videos(root)
            splits = split_videos(tree, cfg.DATA.FOLDER_SPLIT)
        found = sorted({name for tree in splits.values() for name in tree})
        names = class_names(root, found, options["class_names"], cfg.MODEL.NUM_CLASSES)
        split = choose_split(root, splits, mode)
        folder = root / split if presplit else root
        records = Records(str(folder))
        for label, name in enumerate(names):
            for video in splits[split].get(name, ()):
                records.append(str(folder / name / video), label)
        left_out = counted(ignored, "file that is no video", "files that are no videos")
        logger.info(
            "%s: %s of %s for %s (%s split)%s",
            root,
            counted(len(records), "video"),
            counted(len(names), "class", "classes"),
            mode,
            split,
            f"; {left_out} left out" if ignored else "",
        )
        super().__init__(records, **(options | {"class_names": names}))


def class_names(
    root: Path, found: Sequence[str], given: tuple[str, ...], classes: int
) -> tuple[str, ...]:
    """Return the names in label order: the folders, or those given if they cover the folders.

    Raises:
        ConfigError: they don't, or their number isn't MODEL.NUM_CLASSES.
    """
    if not found:
        raise ConfigError(
            f"DATA.PATH_TO_DATA_DIR {root} must have folders of videos, one for each class"
        )
    if unknown := set(found) - set(given or found):
        raise ConfigError(
            f"DATA.CLASS_NAMES has no {min(unknown)!r}, which is a folder of {root}: set it to '' "
            "to name the classes after the folders"
        )
    if not given and len(found) != classes:
        some = ", ".join(found[:3]) + ", …" * (len(found) > 3)
        raise ConfigError(
            f"MODEL.NUM_CLASSES is {classes}, but {root} has {len(found)} classes ({some}): "
            f"set MODEL.NUM_CLASSES {len(found)}"
        )
    return given or tuple(found)


def choose_split(root: Path, splits: dict[str, Tree], mode: str) -> str:
    """Return the split that `mode` reads.

    Raises:
        ConfigError: neither it nor its stand-in has videos.
    """
    for split in (mode, STAND_IN.get(mode, mode)):
        if any(splits[split].values()):
            if split != mode:
                logger.warning(
                    "%s has no videos for %s; those for %s stand in, so that val and test are the "
                    "same videos: a test says too much of a model that was chosen by them",
                    *(root, mode, split),
                )
            return split
    wanted = "train" if mode == "train" else "val or test"
    raise ConfigError(
        f"DATA.PATH_TO_DATA_DIR {root} has no videos for {wanted}: add them, or change "
        "DATA.FOLDER_SPLIT if the folders of classes lie in it directly"
    )


def find_videos(folder: Path) -> tuple[Tree, int]:
    """Return the videos of every class in `folder`, sorted, and the number of other files."""
    tree: Tree = {}
    ignored = 0
    classes = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    hidden = {path.name for path in classes if path.name.startswith((".", "__MACOSX"))}
    for top in sorted(path for path in classes if path.name not in hidden):
        videos = tree[top.name] = []
        for place, folders, files in os.walk(top):
            folders[:] = [name for name in folders if not name.startswith(".")]
            files = [name for name in files if not name.startswith(".")]
            inside = PurePath(place).relative_to(top)
            here = [name for name in files if PurePath(name).suffix.lower() in VIDEO_SUFFIXES]
            images = [name for name in files if PurePath(name).suffix.lower() in IMAGE_SUFFIXES]
            if images and not here and Path(place) != top:
                videos.append(inside.as_posix())
                ignored += len(files) - len(images)
            else:
                videos += [(inside / name).as_posix() for name in here]
                ignored += len(files) - len(here)
        videos.sort()
    empty = {name for name, videos in tree.items() if not videos}
    if left_out := sorted(hidden | empty):
        logger.warning(
            "%s: %d folders are hidden or have no videos, so they are no classes: %s",
            *(folder, len(left_out), ", ".join(left_out[:5])),
        )
    return {name: videos for name, videos in tree.items() if videos}, ignored


def split_videos(tree: Tree, shares: Sequence[float]) -> dict[str, Tree]:
    """Cut each class in parts of these shares, each with a video if the class has three.

    The order that is cut is that of the names' hashes: it depends neither on the operating system
    nor on other classes.

    Args:
        tree: the videos.
        shares: of train, val and test, >= 0.
    """
    splits: dict[str, Tree] = {split: {} for split in SPLITS}
    for name, videos in tree.items():
        order = sorted(videos, key=_hash)
        n, (train, val, test) = len(videos), (share / sum(shares) for share in shares)
        least_val, least_test = int(val > 0), int(test > 0)
        first = max(1, min(round(n * train), n - least_val - least_test))
        second = max(least_val, min(round(n * val), n - first - least_test)) if test else n
        ends = (0, first, min(first + second, n), n)
        for i, split in enumerate(SPLITS):
            splits[split][name] = sorted(order[ends[i] : ends[i + 1]])
    return splits


def _hash(video: str) -> bytes:
    name = unicodedata.normalize("NFC", video)  # macOS may spell é with two characters
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
