from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import av
import pytest
from small_run import dead_process

from timesformer.utils.files import (
    is_inside,
    make_place,
    open_regular,
    temporary_of,
    write_text,
    written_whole,
)


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    with written_whole(path) as partial:
        partial.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"

    def fail() -> None:
        with written_whole(path) as partial:
            partial.write_text("half")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_processes_write_one_file_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is done last has it; neither renames or deletes what the other is writing."""
    path = tmp_path / "list.csv"
    with written_whole(path) as ours:
        ours.write_text("ours")
        with monkeypatch.context() as other:
            other.setattr(os, "getpid", os.getppid)
            with written_whole(path) as theirs:
                theirs.write_text("theirs")
            assert path.read_text() == "theirs"
    assert path.read_text() == "ours"
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_processes_left_goes_and_nothing_else(tmp_path: Path) -> None:
    ours = temporary_of(tmp_path / "a.csv").name
    gone = ours.replace(f".{os.getpid()}.", f".{dead_process()}.")
    kept = [ours.replace(f".{os.getpid()}.", f".{os.getppid()}."), ".b.csv.elsewhere.7.tmp"]
    kept += [".b.csv.tmp", "b.csv.elsewhere.7.tmp"]
    for name in (gone, *kept):
        (tmp_path / name).write_text("half")
    write_text(tmp_path / "c.csv", "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"c.csv", *kept}


def test_long_names_are_written(tmp_path: Path) -> None:
    path = tmp_path / f"{'é' * 124}.csv"  # 252 bytes, of 255
    write_text(make_place(path), "whole")
    assert path.read_text() == "whole"


def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    with pytest.raises(OSError, match=r"No space left on device: .*list\.csv"), written_whole(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="directory: '/nowhere/x'"), written_whole(path):
        Path("/nowhere/x").read_bytes()
    with pytest.raises(OSError, match=r"No space left on device: .*list\.csv"), written_whole(path):
        raise av.error.OSError(errno.ENOSPC, "No space left on device")  # has no name, takes none


def test_is_inside() -> None:
    assert is_inside("/a/b", "/a/b/c")
    assert is_inside("/a/b", "/a/b")
    assert is_inside("/", "/a")
    assert not is_inside("/a/b", "/a/bc")
    assert not is_inside("/a/b", "/a")


def test_a_fifo_is_no_regular_file(tmp_path: Path, make_fifo: Callable[[Path], None]) -> None:
    make_fifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(path)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    (tmp_path / "file").write_bytes(b"text")
    with open_regular(tmp_path / "file") as file:
        assert file.read() == b"text"
