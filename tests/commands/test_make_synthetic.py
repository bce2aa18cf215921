"""`timesformer make-synthetic`: the same bytes from any number of processes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from small_run import dead_process

from timesformer.commands.make_synthetic import parse_args
from timesformer.prepare import synthetic_writer
from timesformer.prepare.synthetic_writer import SyntheticSpec, write_dataset
from timesformer.utils.errors import UserError
from timesformer.utils.files import temporary_of

SPEC = SyntheticSpec(seed=1, train=20, val=6, test=6)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_files_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    done: list[int] = []
    assert write_dataset(tmp_path / "one", SPEC, processes=1) == 32
    assert write_dataset(tmp_path / "two", SPEC, processes=2, progress=done.append) == 32
    assert sum(done) == 32
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_an_interrupted_run_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(tmp_path, SPEC, processes=1)
    whole = digests(tmp_path)
    lost = [SPEC.path("train", 7), SPEC.path("test", 2)]
    for path in lost:
        (tmp_path / path).unlink()
    (tmp_path / "train.csv").unlink()
    half = temporary_of(tmp_path / lost[0]).name.replace(f".{os.getpid()}.", f".{dead_process()}.")
    (tmp_path / lost[0].parent / half).write_bytes(b"half a video")
    monkeypatch.setattr("timesformer.utils.files._swept", set())  # another process has its own
    assert write_dataset(tmp_path, SPEC, processes=1) == len(lost)
    assert digests(tmp_path) == whole
    assert write_dataset(tmp_path, SPEC, processes=1) == 0


def test_other_parameters_need_another_folder(tmp_path: Path) -> None:
    write_dataset(tmp_path, SPEC, processes=1)
    before = digests(tmp_path)
    with pytest.raises(UserError, match="choose another --output"):
        write_dataset(tmp_path, SyntheticSpec(seed=2, train=20, val=6, test=6), processes=1)
    assert digests(tmp_path) == before


def test_a_list_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "val.csv").write_text("mine.mp4 0\n")
    with pytest.raises(UserError, match="isn't empty: choose another --output"):
        write_dataset(tmp_path, SPEC, processes=1)
    assert digests(tmp_path).keys() == {"val.csv"}


def test_a_damaged_manifest_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "synthetic.json").write_text("{")
    with pytest.raises(UserError, match=r"synthetic.json"):
        write_dataset(tmp_path, SPEC, processes=1)


@pytest.mark.parametrize("bad", [{"seed": -1}, {"pairs": 5}, {"train": 0}, {"test": 7}])
def test_impossible_parameters_name_the_option(bad: dict[str, int]) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(bad))}"):
        SyntheticSpec(**bad)


@pytest.mark.parametrize("processes", ["0", "-3"])
def test_no_processes_are_refused(processes: str) -> None:
    with pytest.raises(UserError, match=f"--processes {processes}: must be 1 or more"):
        parse_args(["--output", "x", "--processes", processes])


def test_the_harder_pair_makes_eight_classes() -> None:
    spec = SyntheticSpec(train=16, val=8, test=8, pairs=4)
    assert spec.class_names[6:] == ("turning clockwise", "turning counter-clockwise")
    assert {spec.label("train", i) for i in range(16)} == set(range(8))
    assert spec.frames("train", 7).shape[1:] == (64, 80, 3)


def test_a_process_that_dies_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`in_processes`, whose workers outlive no interrupt, tells of those that end by themselves."""

    def all_die(function, items, workers, crashed):
        assert workers == 2
        yield from ((item, crashed(item)) for item in items)

    monkeypatch.setattr(synthetic_writer, "in_processes", all_die)
    with pytest.raises(UserError, match="the process that writes train video 0 and those after"):
        write_dataset(tmp_path, SPEC, processes=2)
