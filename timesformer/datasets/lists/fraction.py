"""A share of a training list: stratified by class, nested, and the same wherever it is drawn."""

from __future__ import annotations

import hashlib
import heapq
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

from timesformer.datasets.lists.records import Record
from timesformer.datasets.lists.row_paths import is_video


def choose(records: Sequence[Record], fraction: float, root: str = "") -> list[int]:
    """Return which records are the share of a list, in the list's order.

    Of N videos they are the first round(`fraction` × N) in `nested_order`, and the first one of
    every class that has none among these. So each class, or set of classes where videos have
    several, keeps its share of the videos to less than one video; and a smaller share is part of
    every larger one.

    Args:
        records: the list.
        fraction: in (0, 1].
        root: folder of the videos; they are known by their paths in it, so it may be moved.
    """
    if fraction >= 1:
        return list(range(len(records)))
    records = list(records)  # each is made anew whenever it is asked for
    order = nested_order(records, root)
    chosen = set(order[: max(1, math.floor(fraction * len(order) + 0.5))])
    seen: set[int] = set()
    for i in order:
        classes = _classes(records[i])
        if not seen.issuperset(classes):
            chosen.add(i)
            seen.update(classes)
    return sorted(chosen)


def nested_order(records: Sequence[Record], root: str = "") -> list[int]:
    """Return an order of a list's videos of which every beginning has all classes' shares.

    After m of N videos, a class with n of them has had floor(m n / N) or ceil(m n / N). The j-th of
    its videos (from 0) may come once j < m n / N and must have come when m n / N >= j + 1; of those
    that may, the one that must first does, which keeps to all these dates (Steiner & Yeomans 1993,
    Level schedules for mixed-model, just-in-time processes). Within a class, and between classes
    that are equally pressed, the order is that of the hashes of the videos' paths: neither the
    order of the list nor RNG_SEED matters.

    Args:
        records: the list.
        root: see `choose`.
    """
    queues: dict[tuple[int, ...], list[tuple[bytes, str, int]]] = {}
    for i, (record, key) in enumerate(zip(records, _keys(records, root), strict=True)):
        queues.setdefault(_classes(record), []).append((*key, i))
    total = len(records)
    later: list[tuple[int, tuple[int, ...], int]] = []  # (when its next may come, class, which)
    for stratum, videos in queues.items():
        videos.sort()
        later.append((1, stratum, 0))
    heapq.heapify(later)
    ready: list[tuple[int, bytes, str, tuple[int, ...], int]] = []
    order = []
    for m in range(1, total + 1):
        while later and later[0][0] <= m:
            _, stratum, j = heapq.heappop(later)
            last = -(-(j + 1) * total // len(queues[stratum]))
            heapq.heappush(ready, (last, *queues[stratum][j][:2], stratum, j))
        *_, stratum, j = heapq.heappop(ready)
        order.append(queues[stratum][j][2])
        if (j := j + 1) < len(queues[stratum]):
            heapq.heappush(later, (j * total // len(queues[stratum]) + 1, stratum, j))
    return order


def _classes(record: Record) -> tuple[int, ...]:
    return (record.label,) if isinstance(record.label, int) else tuple(sorted(set(record.label)))


def _keys(records: Sequence[Record], root: str) -> Iterator[tuple[bytes, str]]:
    """Yield what orders each video, and what tells it from another one of the same hash.

    A suffix doesn't count, nor which part of a video is meant where the list has no other: copies
    in another format, or as folders of frames, and whole videos make the same choice.
    """
    folder = os.path.join(os.path.abspath(root), "")  # noqa: PTH100, PTH118  (resolves no links)
    times = Counter(record.path for record in records)
    for path, _, start, end, images in records:
        whole = os.path.abspath(path)  # noqa: PTH100
        inside = whole.removeprefix(folder) if whole.startswith(folder) else path
        inside = unicodedata.normalize("NFC", inside.replace(os.sep, "/"))
        known_by = inside.rpartition(".")[0] if is_video(inside) else inside
        part = f"{start} {end} {images and tuple(images)}" if times[path] > 1 else ""
        text = f"{known_by}\0{part}".encode("utf-8", "surrogateescape")
        yield hashlib.sha256(text).digest(), f"{inside}\0{part}"
