"""Where commands write: what can't be is one line, before any work; `~` is the home folder."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_run import RECIPE, small_cfg, small_options

from timesformer.__main__ import command_names, dispatch
from timesformer.utils.errors import UserError, run_tool

OUT = "{out}"
# Each command with an output, in the words of a user. What isn't said (weights, runs, lists) isn't
# there: an output is refused before it is missed.
FOLDERS = {
    "check-data": ["check-data", "--cfg", str(RECIPE), "--output", OUT],
    "embed": ["embed", "{videos}", "--checkpoint", "none.pyth", "--out", OUT],
    "explain": ["explain", "{videos}", "--checkpoint", "none.pyth", "--out", OUT],
    "extract": ["extract", "{videos}", "--checkpoint", "none.pyth", "--out", OUT],
    "probe": ["probe", "{videos}", "--checkpoint", "none.pyth", "--out", OUT],
    "make-synthetic": ["make-synthetic", "--output", OUT],
    "prepare-data": ["prepare-data", "--input", "{videos}", "--output", OUT],
    "convert": ["convert", "none.pyth", OUT, "--to", "safetensors", "--force"],
    "convert to hf": ["convert", "none.pyth", OUT, "--to", "hf"],
    "timeline": ["timeline", "{videos}", "--checkpoint", "none.pyth", "--out", OUT],
    "reproduce": ["reproduce", "--table", "variants", "--out", OUT],
}
FILES = {
    "compare-runs": ["compare-runs", "none", "--plot", OUT],
    "convert to native": ["convert", "none.pyth", OUT, "--to", "native", "--force"],
    "convert to one file": ["convert", "none.pyth", OUT, "--to", "safetensors"],
    "export": ["export", "--checkpoint", "none.pyth", "--to", "onnx", "--out", OUT],
    "predict": ["predict", "{videos}", "--checkpoint", "none.pyth", "--out", OUT],
    "plot-predictions": ["plot-predictions", "--results", "{scores}", "--output", OUT],
    "plot-predictions --gif": [
        *("plot-predictions", "--results", "{scores}", "--output", "a.png", "--gif", OUT)
    ],
}
RUNS = {
    name: [name, "--cfg", str(RECIPE), "{options}", "OUTPUT_DIR", OUT] for name in ("run", "train")
}
here = ["submit", "--local", "--gpus", "0", "--hours", "1", "--cfg", str(RECIPE)]
RUNS["submit"] = [*here, "OUTPUT_DIR", OUT]
# test: its OUTPUT_DIR is that of the training; inspect-checkpoint, watch, serve, verify only show
WITHOUT = {"inspect-checkpoint", "keys", "profile", "recipes", "test", "watch", "serve", "verify"}
SUFFIXES = {"export": ".onnx", "predict": ".csv"}  # of what is written, which they insist on


def fifo(folder: Path) -> Path:
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs FIFOs")
    os.mkfifo(folder / "fifo.safetensors")
    return folder / "fifo.safetensors"


def proc(folder: Path) -> Path:
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc, where root can't write either")
    return Path("/proc/x.safetensors")


def below_a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file" / "x" / "y.safetensors"


def a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file"


def dangling(folder: Path) -> Path:
    (folder / "link").symlink_to(folder / "nowhere" / "x")
    return folder / "link"


def a_folder(folder: Path) -> Path:
    (folder / "folder.safetensors").mkdir()
    return folder / "folder.safetensors"


def too_long(folder: Path) -> Path:
    return folder / f"{'x' * 300}.safetensors"


def line_end(folder: Path) -> Path:
    return folder / "a\nb.safetensors"


EVERYWHERE = (proc, below_a_file, too_long, line_end)
CASES = [
    *(
        (name, words, make)
        for name, words in FILES.items()
        for make in (*EVERYWHERE, a_folder, fifo)
    ),
    *(
        (name, words, make)
        for name, words in (FOLDERS | RUNS).items()
        for make in (*EVERYWHERE, a_file, dangling)
    ),
]


@pytest.fixture(scope="module")
def home(synthetic_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scores of one video."""
    folder = tmp_path_factory.mktemp("home")
    (video, *_) = sorted(synthetic_dir.rglob("*.mp4"))
    cfg = small_cfg(synthetic_dir, folder, NUM_GPUS=0)
    np.savez(
        folder / "scores.npz", scores=np.zeros((1, 6), np.float32), labels=np.array([0]),
        per_view=np.zeros((1, 1, 6), np.float32), paths=np.array([str(video)]),
        failed=np.zeros(1, bool), class_names=np.array([], str), config=np.array(cfg.dump()),
    )  # fmt: skip
    return folder


def words_of(words: list[str], out: Path | str, home: Path, data: Path) -> list[str]:
    said: list[str] = []
    for word in words:
        if word == "{options}":
            said += small_options(data, home / "unused", NUM_GPUS=0)
        else:
            said.append(word.format(out=out, videos=data, scores=home / "scores.npz"))
    return said


def test_every_command_is_in_a_table() -> None:
    tables = {words[0] for words in (FOLDERS | FILES | RUNS).values()}
    assert tables | WITHOUT == set(command_names())
    assert not tables & WITHOUT


@pytest.mark.parametrize(
    ("words", "make"), [case[1:] for case in CASES], ids=[f"{n}: {m.__name__}" for n, _, m in CASES]
)
def test_an_output_that_cannot_be_is_one_line(
    words: list[str],
    make: Callable[[Path], Path],
    home: Path,
    synthetic_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    out = make(tmp_path)
    if (suffix := SUFFIXES.get(words[0])) and os.path.lexists(out):
        out = out.rename(out.with_suffix(suffix))
    elif suffix:
        out = out.with_suffix(suffix)
    before = {path: path.lstat().st_mode for path in tmp_path.rglob("*")}
    said = words_of(words, out, home, synthetic_dir)
    with pytest.raises(SystemExit) as end:
        run_tool(lambda: dispatch(said))
    assert end.value.code == 2
    printed, error = capsys.readouterr()
    assert error.startswith("error: ")
    assert error.count("\n") == 1, error
    assert printed == ""
    place = out.name.replace("\n", "\\n")[:100]
    assert place in error or f"error: {out.parent}: " in error
    # What was there is there, and of the same kind; nothing half done lies beside it.
    assert {path: path.lstat().st_mode for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    ("name", "file"),
    [
        *(("check-data", file) for file in ("problems.csv", "classes.csv", "data.png", "val.csv")),
        *(("prepare-data", file) for file in ("failed.csv", "classes.txt")),
        ("make-synthetic", "train.csv"),
    ],
)
def test_a_pipe_among_the_results_is_refused_before_any_work(
    name: str,
    file: str,
    home: Path,
    synthetic_dir: Path,
    tmp_path: Path,
    make_fifo: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_fifo(tmp_path / file)
    said = words_of(FOLDERS[name], tmp_path, home, synthetic_dir)
    with pytest.raises(SystemExit) as end:
        run_tool(lambda: dispatch(said))
    assert end.value.code == 2
    printed, error = capsys.readouterr()
    assert error.startswith(f"error: {tmp_path / file}: not a regular file")
    assert printed == ""
    assert [path.name for path in tmp_path.iterdir()] == [file]


@pytest.mark.parametrize("form", ["{option} ~/new/x.png", "{option}=~/new/x.png"])
def test_home_is_home(
    form: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell replaces `~` after a space, not after the equals sign of an option."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    results = f"--results={home / 'scores.npz'}"
    dispatch(["plot-predictions", results, *form.format(option="--output").split()])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["new", "x.png"]


@pytest.mark.parametrize(
    "name", ["prepare-data", "make-synthetic", "check-data", "embed", "explain", "timeline"]
)
def test_a_folder_that_another_process_fills_is_refused(
    name: str, home: Path, synthetic_dir: Path, tmp_path: Path
) -> None:
    """Else its files would be of both."""
    output = tmp_path / "out"
    output.mkdir()
    said = {"host": platform.node(), "pid": os.getppid(), "since": "today"}
    (output / ".lock").write_text(json.dumps(said))
    option = "--output" if "--output" in FOLDERS[name] else "--out"
    with pytest.raises(UserError, match=rf"in use by another run, .*: choose another {option}, or"):
        dispatch(words_of(FOLDERS[name], output, home, synthetic_dir))
    assert [path.name for path in output.iterdir()] == [".lock"]
