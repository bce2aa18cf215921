"""A process that ends at once does what it has said it would, and nothing of its parent's."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from timesformer.utils.ending import at_sudden_end, end_now


def end(own: Path) -> None:
    with at_sudden_end(own.touch):
        end_now(7)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_forked_process_leaves_alone_what_is_its_parents(tmp_path: Path) -> None:
    own, parents = tmp_path / "own", tmp_path / "parents"
    with at_sudden_end(parents.touch):
        process = multiprocessing.get_context("fork").Process(target=end, args=(own,))
        process.start()
        process.join(30)
    assert process.exitcode == 7
    assert own.exists()
    assert not parents.exists()
