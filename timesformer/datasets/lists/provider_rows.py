"""Rows of the provider's lists of Kinetics: label,youtube_id,time_start,time_end,split."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from timesformer.datasets.lists.label_reader import BadRowError, Label, LabelReader
from timesformer.utils.files import is_folder

SPLIT_FOLDERS = {"validate": "val", "validation": "val"}  # the provider's word -> people's folder
COLUMNS = ("label", "youtube_id", "time_start", "time_end")


class ProviderParser:
    """Parser of the provider's rows of Kinetics. Raises BadRowError if there is something missing.

    The first row decides, by the folders that are there, where the videos of all rows lie.
    """

    def __init__(self, header: str, root: Path, split: str, read_label: LabelReader) -> None:
        self.columns = csv_fields(header.lower())
        self.root, self.split, self.read_label = root, split, read_label
        self.folder: tuple[str, str] | None = None
        for column in COLUMNS:
            if self.columns.count(column) != 1:
                raise BadRowError(f"there is no column {column!r}, or several")

    def __call__(self, row: str) -> tuple[str, Label, None]:
        """Return path and label of a whole video."""
        fields = dict(zip(self.columns, csv_fields(row), strict=False))
        try:
            name, video, *times = (fields[column] for column in COLUMNS)
            start, end = map(_seconds, times)
        except (KeyError, ValueError):
            raise BadRowError(f"no {', '.join(COLUMNS)} in {row!r:.200}") from None
        label = self.read_label(name)
        if label is None:
            raise self.read_label.unknown(name)
        if not video:
            raise BadRowError(f"no youtube_id in {row!r:.200}")
        if self.folder is None:
            self.folder = self._find_folder(name, fields.get("split", ""))
        folder, form = self.folder
        return (
            f"{folder}{_class_folder(form, name)}{video}_{start:06d}_{end:06d}.mp4",
            label,
            None,
        )

    def _find_folder(self, name: str, split: str) -> tuple[str, str]:
        """Folder that is there, and form of those in it; a copy of the val list may be the test's.

        Returns:
            The folder of a split, or "", and how a class becomes a folder (`_class_folder`).
        """
        splits = dict.fromkeys((self.split, split, SPLIT_FOLDERS.get(split, split)))
        for folder in (*(f"{name}/" for name in splits if name), ""):
            for form in (" ", "_", ""):
                path = folder + _class_folder(form, name)
                if path and is_folder(self.root / path):
                    return folder, form
        return "", ""


def _class_folder(form: str, name: str) -> str:
    """Folder of a class, whose spaces are `form`; "" if videos lie in no such folders."""
    return name.replace(" ", form) + "/" if form else ""


def _seconds(time: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]*)?", time.strip()):
        raise ValueError(time)
    return int(time.strip().partition(".")[0])


def is_provider_header(row: str) -> bool:
    """Tell whether a first row names the provider's columns."""
    return "youtube_id" in row.lower() and "youtube_id" in csv_fields(row.lower())


def csv_fields(row: str) -> list[str]:
    """Return the fields of a row of CSV."""
    try:
        return next(csv.reader([row], skipinitialspace=True), [])
    except csv.Error as error:
        raise BadRowError(f"not a row of fields: {error}") from None
