"""Which videos to embed: those of a list, a folder, or a run's data set, and their classes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from fvcore.common.config import CfgNode
from numpy.typing import NDArray

from timesformer.datasets.build import build_video_split
from timesformer.datasets.catalogue.video_folder import find_videos
from timesformer.datasets.lists.class_names import read_class_names
from timesformer.datasets.lists.fraction import nested_order
from timesformer.datasets.lists.label_reader import MOST
from timesformer.datasets.lists.records import Records
from timesformer.datasets.lists.row_paths import VIDEO_SUFFIXES
from timesformer.datasets.lists.rows import read_list
from timesformer.datasets.parts import SPLITS
from timesformer.datasets.video.reader import VideoReader
from timesformer.utils.errors import AnnotationError, ConfigError, UserError
from timesformer.utils.files import is_file, is_folder
from timesformer.utils.logging import get_logger
from timesformer.utils.text import class_name, counted

logger = get_logger(__name__)

NO_LABEL = -1
NAMES = "classes.txt"  # beside a list: `make-synthetic` and `prepare-data` write it
EVALUATION = ("test", "val")  # which split is looked at, in this order
# Options of the command that messages know as keys of a config.
_OPTIONS = {
    "DATA.CLASS_NAMES": "--class-names",
    "DATA.PATH_PREFIX": "--prefix",
    "MODEL.NUM_CLASSES is": "the number of class names is",
}


@dataclass(frozen=True)
class Videos:
    """Videos to embed.

    Attributes:
        records: the videos; their label is NO_LABEL where nothing says it.
        class_names: in label order, or ().
        source: where they come from, in a few words.
        reader: reads them.
    """

    records: Records
    class_names: tuple[str, ...]
    source: str
    reader: VideoReader = field(default_factory=VideoReader)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels (V,)."""
        return np.array([record.label for record in self.records], np.int64)

    @property
    def labelled(self) -> bool:
        """Whether videos have labels."""
        return NO_LABEL not in self.records.classes

    @property
    def names(self) -> list[str]:
        """Names of all classes up to the largest label: what nothing names is its number."""
        count = max(len(self.class_names), max(self.records.classes, default=NO_LABEL) + 1)
        return [class_name(self.class_names, label) for label in range(count)]

    def described(self, labels: NDArray[np.int64]) -> str:
        """Say how many videos with these labels there are: "120 videos of 6 classes"."""
        of = f" of {counted(len({*labels}), 'class', 'classes')}" if self.labelled else ""
        return f"{counted(len(labels), 'video')}{of}"


def of_list(path: Path, class_names: str = "", prefix: str = "") -> Videos:
    """Read a list of videos, of which `timesformer.datasets.lists.rows` says the forms.

    Args:
        path: the list.
        class_names: a file with a name a line, or a shipped list; classes.txt beside the list
            where that is, and this is empty.
        prefix: the folder that paths are relative to. Without, that is the current one, or the
            list's if the first video is there only.

    Raises:
        AnnotationError: the list can't be read.
        ConfigError: there are no such class names.
    """
    names = _names(class_names, path.parent / NAMES)
    try:
        records = read_list(path, len(names) or MOST, prefix=prefix, class_names=names)
        first = records[0].path
        if not prefix and not os.path.exists(first) and (path.parent / first).exists():  # noqa: PTH110
            prefix = str(path.parent)
            records = read_list(path, len(names) or MOST, prefix=prefix, class_names=names)
    except AnnotationError as error:
        raise AnnotationError(_as_options(str(error))) from error
    return Videos(records, names, path.name)


def of_folder(
    folder: Path, split: str | None = None, class_names: str = "", prefix: str = ""
) -> Videos:
    """List the videos of a folder.

    It is one of lists (test.csv, …), of splits (test/CLASS/…), of classes (CLASS/…), or of videos,
    which have no labels then.

    Args:
        folder: the folder.
        split: train, val or test; without, test or else val, where there are splits.
        class_names: see `of_list`; of classes the names of their folders if empty.
        prefix: see `of_list`.

    Raises:
        UserError: it has no videos, or not this split.
    """
    splits = (split,) if split else EVALUATION
    for name in splits:
        for path in (folder / f"{name}.csv", folder / f"{name}.txt"):
            if is_file(path):
                return replace(of_list(path, class_names, prefix), source=f"{folder.name}, {name}")
    if prefix:
        raise UserError(f"--prefix {prefix}: it is for lists, and {folder} has none")
    for name in splits:
        if is_folder(folder / name) and find_videos(folder / name)[0]:
            return of_classes(folder / name, class_names, f"{folder.name}, {name}")
    if split:
        raise UserError(f"{folder}: has neither {split}.csv nor videos in {split}/CLASS/")
    if any(is_folder(folder / name) for name in SPLITS):
        raise UserError(f"{folder}: has videos for neither test nor val: say --split train")
    return of_classes(folder, class_names, folder.resolve().name)


def of_classes(folder: Path, class_names: str, source: str) -> Videos:
    """List videos CLASS/…, or, without labels, those that lie in the folder itself."""
    tree, _ = find_videos(folder)
    records = Records()
    loose = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")
    ]
    if not tree:
        if class_names:
            raise UserError(f"--class-names: {folder} has no folders of classes")
        for path in loose:
            records.append(str(path), NO_LABEL)
        if not records:
            raise UserError(f"{folder}: there are no videos in it, nor in folders of classes")
        return Videos(records, (), source)
    if loose:
        left_out = counted(len(loose), "video")
        logger.warning("%s: %s beside the folders of classes left out", folder, left_out)
    names = _names(class_names) or tuple(tree)
    if unknown := sorted(set(tree) - set(names)):
        raise ConfigError(f"--class-names has no {unknown[0]!r}, which is a folder of {folder}")
    for label, name in enumerate(names):
        for video in tree.get(name, ()):
            records.append(str(folder / name / video), label)
    return Videos(records, names, source)


def of_run(cfg: CfgNode, run: Path, split: str | None = None) -> Videos:
    """Return the videos that a run was tested on, or those of another split.

    Args:
        cfg: the run's config.
        run: its folder, for messages.
        split: train, val or test; without, test or, if its list is missing, val.

    Raises:
        AnnotationError: the list can't be read.
        ConfigError: the data set isn't one of video files, or its videos have several labels.
    """
    for name in (split,) if split else EVALUATION:
        try:
            data = build_video_split(cfg, name)
        except AnnotationError as error:
            if split or name == EVALUATION[-1]:
                raise AnnotationError(f"{run}: {error}") from error
            continue
        if not isinstance(data.records, Records) or data.records.multi_label:
            raise ConfigError(f"{run}: its videos have several labels, and a point has one colour")
        return Videos(data.records, data.class_names, f"{run.name}, {name}", data.reader)
    raise AssertionError("there is a split")


def chosen(records: Records, count: int) -> list[int]:
    """Choose videos, of each class its share; a smaller choice is part of every larger one.

    They are known by their paths within the folder that all are in, wherever that is.
    """
    places = {os.path.dirname(os.path.abspath(record.path)) for record in records}  # noqa: PTH100, PTH120
    return sorted(nested_order(records, os.path.commonpath(places))[:count])


def _names(source: str, beside: Path | None = None) -> tuple[str, ...]:
    """Read class names, however many they are."""
    if not source and beside is not None and is_file(beside):
        source = str(beside)
    return read_class_names(source, None, "--class-names")


def _as_options(message: str) -> str:
    for key, option in _OPTIONS.items():
        message = message.replace(key, option)
    return message
