from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from timesformer.utils.files import is_inside, open_regular, written_whole


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


def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    with pytest.raises(OSError, match=r"No space left on device: .*list\.csv"), written_whole(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="directory: '/nowhere/x'"), written_whole(path):
        Path("/nowhere/x").read_bytes()


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
