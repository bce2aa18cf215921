from __future__ import annotations

from pathlib import Path

import pytest

from timesformer.utils.files import written_whole


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
