"""Lists with something changed at random: refused in one line, or read as records that hold."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from campaign import scaled, tell

from timesformer.datasets.catalogue.ssv2 import read_answers, read_labels, read_split
from timesformer.datasets.lists.class_names import read_class_names
from timesformer.datasets.lists.frame_rows import read_frame_list
from timesformer.datasets.lists.json_entries import read_json
from timesformer.datasets.lists.records import Record
from timesformer.datasets.lists.row_parser import RowParser
from timesformer.datasets.lists.rows import read_list
from timesformer.datasets.lists.written import write_list
from timesformer.utils.errors import UserError

MUTATIONS = scaled(20_000)
SLOW = 2.0  # seconds; a list of some rows takes a thousandth
CLASSES = 20
NAMES = (*(f"class {letter}" for letter in "abcdefghijklmnopqrs"), "a, b")
IDS = {name: i for i, name in enumerate(NAMES)}

ROWS = {
    "plain": "videos/a.mp4 1\nvideos/b c.mp4 17\nvideos/d.mp4 0\n",
    "commas": '"a, b.mp4",17\nc d.mp4,3\nframes/e,300,2\n',
    "tabs": "path\tlabel\na\t3\nmy frames/b\t12\t300\t4\n",
    "mmaction2": "frames/a 300 1\nframes/b 12 300 17\nframes/c 1 9 5\n",
    "several": "a.mp4 1,2\nb.mp4 3 4 5\nc.mp4::class a,class b\n",
    "named": 'a.mp4 class a\nclass b/c.mp4\nd.mp4,"a, b"\n',
    "provider": "label,youtube_id,time_start,time_end,split\nclass a,x,1,2,train\nclass b,y,3,4.5",
}
FRAMES = "original_vido_id video_id frame_id path labels\n" + "".join(
    f"{i} {i} {j} {i}/{j}.jpg {i % 5}\n" for i in range(3) for j in range(3)
)
ENTRIES = json.dumps([{"id": str(i), "template": NAMES[i]} for i in range(4)])
LABELS = json.dumps({name: str(i) for name, i in IDS.items()})
ANSWERS = "".join(f"{i};{NAMES[i]}\n" for i in range(4))

PIECES = (
    *(" ", "  ", "\t", ",", "::", ":", ";", "|", '"', '""', "\n", "\r", "\r\n", "/", "../", "\\"),
    *("0", "-0", "-1", "+1", "1.5", "1e9", "9" * 30, "9" * 5000, "\u0663", "\u00b2", "\u00a0"),
    *(
        "\ufeff",
        "\u2028",
        "\x00",
        "\x1f",
        "\x7f",
        "\x85",
        "\ud800",
        "{",
        "}",
        "[",
        "]",
        "{0}",
        "%s",
    ),
    *("null", "true", "NaN", "Infinity", "[" * 2000, '{"a":' * 50, "\\ud800", "\\u0000", "class a"),
    *(".mp4", "a.mp4", "label", "path", "x" * 300, "x" * 5000, "../" * 50, "1 " * 500, "1," * 500),
)


def mutate(text: str, rng: random.Random) -> bytes:
    """Change a text in one to four places, as text, and once in a while as bytes."""
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(text) + 1)
        end = min(len(text), start + rng.choice((0, 0, 1, 1, 2, 5, 20)))
        new = rng.choice((rng.choice(PIECES), text[rng.randrange(len(text) + 1) :][:20], ""))
        text = text[:start] + new + text[end:]
    data = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        data = rng.choice(
            (text.encode("utf-16", "surrogatepass"), data[: rng.randrange(len(data) + 1)])
        )
    if rng.random() < 0.1 and data:
        place = rng.randrange(len(data))
        data = data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
    return data


def readers(folder: Path) -> dict[str, tuple[str, Callable[[Path], object]]]:
    """A valid text, and what reads it, for every kind of list.

    Rows are read twice, the second time without the short cut for plain rows: it changes nothing.
    """

    def rows(multi: bool, separator: str) -> Callable[[Path], object]:
        def read(path: Path) -> list[Record]:
            options = {"separator": separator, "class_names": NAMES, "multi_label": multi}
            return list(read_list(path, CLASSES, **options))

        def read_twice(path: Path) -> None:
            with mock.patch.object(RowParser, "plain", return_value=None):
                try:
                    slowly: object = read(path)
                except UserError as error:
                    slowly = str(error)
            try:
                records = read(path)
            except UserError as error:
                same = str(error) == slowly
                raise (error if same else AssertionError(f"{error}, but slowly {slowly}")) from None
            assert records == slowly
            holds(records, folder / "again.csv", multi)

        return read_twice

    separators = {"commas": ",", "tabs": "\t", "named": "::"}
    found = {
        name: (text, rows(name == "several", separators.get(name, " ")))
        for name, text in ROWS.items()
    }
    return {
        **found,
        "frame rows": (FRAMES, lambda path: read_frame_list(path, 5, folder)),
        "json": (ENTRIES, lambda path: read_split(path, IDS, folder)),
        "labels": (LABELS, lambda path: read_labels(path, CLASSES)),
        "answers": (ANSWERS, lambda path: read_answers(path, IDS, folder)),
        "class names": ("\n".join(NAMES), lambda path: read_class_names(str(path), CLASSES)),
        "any json": (ENTRIES, read_json),
    }


def holds(records: list[Record], path: Path, multi: bool) -> None:
    """Make sure that labels are labels, and that a list of these records says the same."""
    for record in records:
        labels = record.label if isinstance(record.label, tuple) else (record.label,)
        assert labels
        assert all(0 <= label < CLASSES for label in labels)
        assert record.end is None or 0 <= record.start < record.end
    if not any("\t" in record.path for record in records):
        write_list(path, records, " ", multi)
        again = list(read_list(path, CLASSES, class_names=NAMES, multi_label=multi))
        assert again == records


def test_mutated_lists(tmp_path: Path) -> None:
    (tmp_path / "0.webm").touch()
    kinds = readers(tmp_path)
    path, counts, slowest = tmp_path / "list.csv", Counter[str](), 0.0
    for text, read in kinds.values():
        path.write_text(text)
        read(path)
    for i in range(MUTATIONS):
        name = list(kinds)[i % len(kinds)]
        data = mutate(kinds[name][0], random.Random(f"{name} {i}"))
        path.write_bytes(data)
        start = time.monotonic()
        try:
            kinds[name][1](path)
            counts["read"] += 1
        except UserError as error:
            message = str(error)
            assert len(message.splitlines()) == 1, (name, i, message)
            assert "list.csv" in message or "DATA." in message or "webm" in message, (name, i)
            counts["refused"] += 1
        except Exception as error:
            pytest.fail(f"{name}, mutation {i}: {error!r:.300} of {data!r:.1000}")
        slowest = max(slowest, time.monotonic() - start)
    tell("mutated lists", **counts, other=0, slowest_in_ms=round(1000 * slowest))
    assert slowest < SLOW
    assert counts["read"]
    assert counts["refused"]
