"""What a list's labels say that can hardly be meant."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from timesformer.datasets.lists.records import Record, Records

SHOWN = 5  # classes named in a line


def doubts(records: Sequence[Record], num_classes: int, class_names: Sequence[str]) -> list[str]:
    """Say in words what is doubtful about the labels of a list.

    Args:
        records: one label a video, or several.
        num_classes: K.
        class_names: in label order, or ().
    """
    return [
        *_in_other_folders(records, class_names),
        *_without_video(records, num_classes, class_names),
    ]


def _in_other_folders(records: Sequence[Record], class_names: Sequence[str]) -> Iterator[str]:
    """Compare labels with the folders of videos, where these are named after classes."""
    if not class_names:
        return
    index = {_plain(name): label for label, name in enumerate(class_names)}
    known, other, first = 0, 0, ""
    shifts: set[int] = set()
    for record in records:
        folder = os.path.basename(os.path.dirname(record.path))  # noqa: PTH119, PTH120
        label = index.get(_plain(folder))
        if label is None or not isinstance(record.label, int):
            continue
        known += 1
        if label != record.label:
            other += 1
            shifts.add(record.label - label)
            first = first or f"{record.path} has label {record.label}, {class_names[record.label]}"
    if other:
        why = ""
        if other == known and shifts == {1}:
            why = ": labels seem to count from 1, and must from 0"
        yield (
            f"{other:,} of {known:,} videos lie in the folder of another class than their label's "
            f"(the first: {first}){why}"
        )


def _without_video(
    records: Sequence[Record], num_classes: int, class_names: Sequence[str]
) -> Iterator[str]:
    present: set[int] = records.classes if isinstance(records, Records) else set()
    for record in () if present else records:
        present.update((record.label,) if isinstance(record.label, int) else record.label)
    if absent := [label for label in range(num_classes) if label not in present]:
        some = ", ".join(class_names[k] if class_names else str(k) for k in absent[:SHOWN])
        more = ", …" if len(absent) > SHOWN else ""
        why = "; if labels count from 1, subtract 1" if absent == [0] else ""
        yield f"classes without a video, {len(absent)}: {some}{more}{why}"


def _plain(name: str) -> str:
    return name.replace("_", "").replace(" ", "").lower()
