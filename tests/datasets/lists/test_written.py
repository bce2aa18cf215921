"""Lists that are written are read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from timesformer.datasets.lists.rows import read_list
from timesformer.datasets.lists.written import list_path, write_list


@pytest.mark.parametrize("separator", [" ", ",", "\t", "::"])
@pytest.mark.parametrize("multi", [False, True])
def test_lists_are_read_back(tmp_path: Path, separator: str, multi: bool) -> None:
    labels = [(3,), (0, 12)] if multi else [3, 12]
    paths = ["my videos/a, b 5.mp4", "x::y/c.mp4"]
    write_list(tmp_path / "train.csv", zip(paths, labels, strict=True), separator, multi)
    records = read_list(tmp_path / "train.csv", 13, separator=separator, multi_label=multi)
    assert [(record.path, record.label) for record in records] == list(
        zip(paths, labels, strict=True)
    )
    assert len(list(tmp_path.iterdir())) == 1


def test_paths_are_written_as_they_were_read() -> None:
    assert list_path("/data/a.mp4", "") == "/data/a.mp4"
    assert list_path("/data/x/a.mp4", "/data/") == "x/a.mp4"
