"""`timesformer`: finding commands, helping, complaining; and tools/, their older names."""

from __future__ import annotations

import ast
import errno
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_run import RECIPE, ROOT, small_options, stats

import timesformer
from timesformer import commands
from timesformer.__main__ import command_names, dispatch, summary
from timesformer.utils.checkpoint import get_last_checkpoint
from timesformer.utils.errors import UserError, run_tool, signals_end_at_once

COMMANDS = command_names()
TOOLS = {
    "check_data": "check-data", "compare_runs": "compare-runs", "convert_checkpoint": "convert",
    "make_synthetic": "make-synthetic", "plot_predictions": "plot-predictions",
    "prepare_data": "prepare-data", "profile_model": "profile", "run_net": "run",
    "reproduce": "reproduce", "test_net": "test", "train_net": "train",
}  # fmt: skip


def status(call: Callable[[], None]) -> int:
    with pytest.raises(SystemExit) as caught:
        run_tool(call)
    return int(caught.value.code or 0)


@pytest.mark.parametrize("streams", [("stdout",), ("stdout", "stderr")])
def test_streams_on_a_full_disk(streams: tuple[str, ...]) -> None:
    """One line where it can be said, and a status that no error at the end replaces."""
    program = (
        "from timesformer.utils.errors import run_tool\n"
        "def main():\n    print('a table')\n"
        "run_tool(main)"
    )
    with Path("/dev/full").open("w") as full:
        to = {"stderr": subprocess.PIPE} | dict.fromkeys(streams, full)
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, text=True, **to)
    assert done.returncode == 2
    if "stderr" not in streams:
        assert done.stderr == "error: writing: No space left on device\n"


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_every_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    dispatch(words)
    text = capsys.readouterr().out
    assert {"run", "train", "test", "check-data", "convert", "profile"} <= set(COMMANDS)
    for name in COMMANDS:
        assert f"  {name} " in text
        assert f" {summary(name)}\n" in text
    assert max(map(len, text.splitlines())) <= 100


def test_help_and_version_import_no_command() -> None:
    """In a process of its own: here, other tests have imported all of them."""
    program = (
        "import sys; from timesformer.__main__ import dispatch; dispatch(['--version']); "
        "dispatch(['--help']); names = {m.split('.')[0] for m in sys.modules}; "
        "print(*names & {'torch', 'numpy', 'av', 'fvcore', 'yaml'}, "
        "*(m for m in sys.modules if m.startswith('timesformer.commands.')), sep=';')"
    )
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    first, *_, last = done.stdout.splitlines()
    assert first == f"timesformer {timesformer.__version__}"
    assert last == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(lambda: dispatch([name, "--help"])) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: timesformer {name} ")
    assert "xample" in text
    assert f"  timesformer {name} " in text or name == "recipes"
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_explains_itself_in_a_line(name: str) -> None:
    line = summary(name)
    assert line.endswith(".")
    assert len(line) <= 80
    assert not line.split()[0].endswith("s")  # it is an order


def test_a_file_is_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "say_it.py").write_text('"""Say it.\n\nLoudly."""\ndef main(argv): print(*argv)\n')
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
    dispatch(["--help"])
    assert "  say-it              Say it.\n" in capsys.readouterr().out
    for name in ("say-it", "say_it"):
        dispatch([name, "now", "--loud"])
        assert capsys.readouterr().out == "now --loud\n"
    sys.modules.pop("timesformer.commands.say_it")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "check_dta",
            "check_dta (`timesformer --help` lists the commands); did you mean check-d",
        ),
        ("tset", "the commands); did you mean test?"),
        ("zzz", "there is no command zzz (`timesformer --help` lists the commands)"),
        ("--verison", "there is no option --verison"),
    ],
)
def test_an_unknown_command_is_one_line(
    word: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(lambda: dispatch([word])) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


# Of every command, a mistake in its words, and what is said about it.
MISTAKES = {
    "check-data": (["--cfg", str(RECIPE), "--workers", "x"], "--workers: invalid int value: 'x'"),
    "compare-runs": ([], "OUTPUT_DIR"),
    "convert": (["a", "b", "--to", "onnx"], "invalid choice: 'onnx'"),
    "embed": (["a.csv", "--checkpoint", "b", "--out", "c", "--method", "umap"], "'umap'"),
    "explain": (["a.mp4", "--checkpoint", "b", "--out", "c", "--method", "cam"], "'cam'"),
    "export": (["--checkpoint", "a", "--to", "tflite", "--out", "b"], "'tflite'"),
    "extract": (
        ["a.mp4", "--checkpoint", "b", "--out", "c", "--shard", "0/4"],
        "--shard 0/4: i/n",
    ),
    "inspect-checkpoint": (["a.pyth", "--weights"], "--weights: there is nothing to compare with"),
    "make-synthetic": ([], "--output"),
    "plot-predictions": (["--cfg", str(RECIPE)], "--results, --output"),
    "submit": (["--cfg", str(RECIPE)], "--hours"),
    "predict": (["a.mp4", "--checkpoint", "b", "--amp", "tf32"], "'tf32'"),
    "prepare-data": (["--output", "x"], "one of the arguments --cfg --input is required"),
    "probe": (["--checkpoint", "b"], "--out"),
    "profile": (["--cfg", str(RECIPE), "NUM_GPUS"], "has no partner"),
    "keys": (["zebra"], "none has 'zebra'"),
    "recipes": (["zebra"], "none has 'zebra'"),
    "reproduce": (["--figure", "scheme"], "did you mean schemes?"),
    "run": (["--cfg", "Synthetic/TimeSformer_divST"], "lists them); did you mean Synthetic/"),
    "serve": (["--checkpoint", "a", "--port", "http"], "--port: invalid int value: 'http'"),
    "test": (["--cfg", str(RECIPE), "TEST.ENABLE", "False"], "use `timesformer train`"),
    "timeline": (["a.mp4", "--checkpoint", "b", "--out", "c", "--stride", "fast"], "'fast'"),
    "train": (["--cfg", str(RECIPE), "TRAIN.ENABLE", "no"], "use `timesformer test`"),
    "verify": (["run", "--start", "first"], "'first'"),
    "watch": (["0", "--checkpoint", "b", "--every", "often"], "'often'"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_mistake_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    words, said = MISTAKES.get(name, (["--no-such-option"], "--no-such-option"))
    assert status(lambda: dispatch([name, *words])) == 2
    out, error = capsys.readouterr()
    assert said in error
    assert error.startswith("error: ")
    assert (out, error.count("\n")) == ("", 1)


@pytest.mark.parametrize(
    "words",
    [
        ["check-data", "--cfg", str(RECIPE), "--output"],
        ["make-synthetic", "--output"],
        ["reproduce", "--table", "variants", "--out"],
    ],
)
def test_a_folder_that_cannot_be_made_is_one_line(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert status(lambda: dispatch([*words, str(tmp_path / "file" / "x" / "y")])) == 2
    out, error = capsys.readouterr()
    assert "can't make this folder: " in error
    assert "file is no folder" in error
    assert (out, error.count("\n")) == ("", 1)


@pytest.mark.parametrize("name", ["plot-predictions", "compare-runs", "reproduce"])
def test_a_missing_extra_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for module in [m for m in sys.modules if m.startswith(("matplotlib", "timesformer.visual"))]:
        monkeypatch.delitem(sys.modules, module)

    def find_spec(wanted: str, *_: object) -> None:
        if wanted == "matplotlib":
            raise ModuleNotFoundError(f"No module named {wanted!r}", name=wanted)

    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=find_spec), *sys.meta_path])
    (tmp_path / "stats.jsonl").touch()
    words = {
        "plot-predictions": ["--cfg", str(RECIPE), "--results", "a.npz", "--output", "b.png"],
        "compare-runs": [str(tmp_path), "--plot", "b.png"],
        "reproduce": ["--figure", "order", "--out", str(tmp_path / "out")],
    }
    assert status(lambda: dispatch([name, *words[name]])) == 2
    error = capsys.readouterr().err
    assert error == "error: No module named 'matplotlib': pip install 'timesformer[viz]'\n"
    with pytest.raises(ModuleNotFoundError, match="unknown"):  # a bug of ours keeps its traceback
        run_tool(lambda: import_module("unknown"))


# Of every command with KEY VALUE pairs: the words that it needs, and its options.
WITH_PAIRS = {
    "check-data": ([], ["--decode", "--splits", "--output", "--workers"]),
    "plot-predictions": (
        ["--results", "a.npz", "--output", "b.png"],
        ["--gif=x.gif", "--clips", "--results", "--output=c.png"],
    ),
    "prepare-data": (["--output", "copies"], ["--gop", "--crf", "--short-side", "--output"]),
    "profile": ([], ["--all-schemes"]),
    "run": ([], ["--num_shards", "--shard_id=1", "--init_method"]),
    "submit": (["--hours", "1"], ["--nodes=1", "--gpus", "--seeds", "--sbatch=x=y", "--local"]),
    "test": ([], ["--num_shards", "--shard_id=1", "--init_method"]),
    "train": ([], ["--num_shards", "--shard_id=1", "--init_method"]),
}


def test_every_command_with_pairs_is_tried(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        assert status(lambda name=name: dispatch([name, "--help"])) == 0  # type: ignore[misc]
        # Those of reproduce are for the runs that it starts, which have recipes of their own, and
        # those of verify for a run's own config; its options may stand after them.
        tried = name in WITH_PAIRS or name in ("reproduce", "verify")
        assert ("KEY VALUE" in capsys.readouterr().out) == tried


@pytest.mark.parametrize("option", ["--seeds", "--jobs", "--data-set", "--out"])
def test_options_of_reproduce_come_before_the_pairs(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reproduce", "--figure", "schemes", "NUM_GPUS", "0", option, "1"]
    assert status(lambda: dispatch(words)) == 2
    assert f"{option} must come before the KEY VALUE pairs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "option"), [(n, option) for n in WITH_PAIRS for option in [*WITH_PAIRS[n][1], "--cfg"]]
)
def test_options_come_before_the_pairs(
    name: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    needed, recipe = WITH_PAIRS[name][0], ["--cfg", str(RECIPE)]
    bare = option.partition("=")[0]
    said = f"{bare} must come before the KEY VALUE pairs"
    for value in ("0", "1"):  # an odd or an even number of words
        words = [*needed, *recipe, "NUM_GPUS", "0", option, *[value] * int(value)]
        assert status(lambda words=words: dispatch([name, *words])) == 2  # type: ignore[misc]
        assert said in capsys.readouterr().err
    # An option that is needed isn't missing, but late.
    if bare in needed or bare == "--cfg":
        early = [] if bare == "--cfg" else recipe
        rest = {a: b for a, b in zip(needed[::2], needed[1::2], strict=True) if a != bare}
        words = [*early, *(word for pair in rest.items() for word in pair), "NUM_GPUS", "0"]
        assert status(lambda: dispatch([name, *words, option, "1"])) == 2
        assert said in capsys.readouterr().err


def test_training_then_testing(synthetic_dir: Path, tmp_path: Path) -> None:
    """The recipe says both; each command does its own, and knows the recipe by its name."""
    recipe = ["--cfg", "Synthetic/TimeSformer_divST_8_64"]
    options = small_options(synthetic_dir, tmp_path, SOLVER__MAX_EPOCH=1, NUM_GPUS=0)
    with pytest.raises(UserError, match="train first"):
        dispatch(["test", *recipe, *options])
    dispatch(["train", *recipe, *options])
    assert len(stats(tmp_path, "train_epoch")) == 1
    assert stats(tmp_path, "test_final") == []
    weights = get_last_checkpoint(tmp_path)
    assert weights is not None
    before = weights.stat().st_mtime_ns
    dispatch(["test", *recipe, *options])
    assert len(stats(tmp_path, "train_epoch")) == 1
    assert len(stats(tmp_path, "test_final")) == 1
    assert weights.stat().st_mtime_ns == before


def test_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    dispatch(["recipes"])
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[0] == "recipe"
    assert len(rows) == len(list((ROOT / "configs").rglob("*.yaml")))
    assert any(
        row.startswith("Kinetics/TimeSformer_divST_16x16_448 ")
        and row.endswith(" TimeSformer-HR on Kinetics-400: 16 frames, one in 16, 448 x 448.")
        for row in rows
    )
    dispatch(["recipes", "SSV2"])
    rows = capsys.readouterr().out.splitlines()[1:]
    assert rows
    assert all(row.startswith("SSv2/") for row in rows)


def test_tools_are_faces_of_commands() -> None:
    files = {path.stem: path for path in (ROOT / "tools").glob("*.py")}
    assert files.keys() == TOOLS.keys()
    for name, path in files.items():
        main = runpy.run_path(str(path))["main"]
        assert main.__module__ == "timesformer.commands." + TOOLS[name].replace("-", "_")
        last = ast.parse(path.read_text()).body[-1]
        assert ast.unparse(last) == "if __name__ == '__main__':\n    run_tool(main)"


def test_published_names_of_tools() -> None:
    train_net = runpy.run_path(str(ROOT / "tools" / "train_net.py"))
    assert all(callable(train_net[name]) for name in ("train", "train_epoch", "eval_epoch"))
    test_net = runpy.run_path(str(ROOT / "tools" / "test_net.py"))
    assert all(callable(test_net[name]) for name in ("test", "perform_test"))


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), 2, "error: a/b: No space left"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), 2, "error: a/b: Permission"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_isnt_the_commands_fault_is_one_line(raised, code, said, capsys) -> None:
    def command() -> None:
        raise raised

    assert status(command) == code
    error = capsys.readouterr().err
    assert error.startswith(said)
    assert error.count("\n") == 1
    with pytest.raises(FileNotFoundError):  # a bug of ours keeps its traceback
        run_tool(lambda: Path("/nowhere/at all").read_text())


def test_a_signal_during_imports_ends_at_once(monkeypatch, capfd) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(os, "_exit", lambda code: codes.append(code))
    codes: list[int] = []
    with signals_end_at_once():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert codes == [130, 143]
    assert capfd.readouterr().err == "interrupted\nended by SIGTERM\n"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_sigterm_ends_a_command_with_what_it_does_at_its_end(capfd) -> None:
    ended: list[str] = []

    def command() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            ended.append("processes, temporary files")

    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which would end the tests
    try:
        assert status(command) == 143
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended
    assert capfd.readouterr().err == "ended by SIGTERM\n"


def test_a_reader_that_has_enough_is_no_error() -> None:
    program = "import sys; from timesformer.__main__ import main; sys.argv[1:] = ['keys']; main()"
    command = f'{sys.executable} -u -c "{program}" | head -1'
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "NUM_GPUS 1\n"
    assert done.stderr == ""


def test_a_broken_command_does_not_hide_the_others(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "half.py").write_text("def main(:\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__init__.py").touch()
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
    dispatch(["--help"])
    text = capsys.readouterr().out
    assert "  half                (can't be read: " in text
    assert "  recipes " in text
    assert "  folder " not in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["NUM_GPUS", "0", "--cfg", str(RECIPE)], "--cfg must come before the KEY VALUE pairs"),
        (["--cfg", str(ROOT)], "a folder, not a YAML file"),
        (["my.yaml"], "give the recipe as --cfg my.yaml"),
        (["my.yaml", "NUM_GPUS", "0"], "give the recipe as --cfg my.yaml"),
        (["NUM_GPUS", "0", "run/last.pyth"], "give the recipe as --cfg run/last.pyth"),
        (["Synthetic/TimeSformer_divST_8_64"], "as --cfg Synthetic/TimeSformer_divST_8_64"),
        (["--cfg", str(RECIPE), "my.yml"], "my.yml is no key; give a config as --cfg my.yml"),
        (["--cfg", str(RECIPE), "NUM_GPUS=0"], "write NUM_GPUS 0, with a space, not NUM_GPUS=0"),
        (["--cfg", str(RECIPE), "--NUM_GPUS", "0"], "write NUM_GPUS VALUE, without dashes, not"),
        (["--cfg", str(RECIPE), "--num_gpus=0"], "write NUM_GPUS 0, without dashes, not --num_g"),
        (["--cfg", str(RECIPE), "--SOLVER.BASE_LR", "1"], "write SOLVER.BASE_LR VALUE, without"),
        (["--cfg", str(RECIPE), "NUM_GPUS"], "the last word 'NUM_GPUS' has no partner"),
        (
            ["--cfg", str(RECIPE), "OUTPUT_DIR", "NUM_GPUS", "0"],
            "OUTPUT_DIR has no value: NUM_GPUS",
        ),
        (["--cfg", str(RECIPE), "NUM_GPUS", "0", "-h"], "option -h must come before the KEY VALUE"),
    ],
)
def test_where_the_recipe_stands_and_what_it_is(words, said, capsys) -> None:
    assert status(lambda: dispatch(["train", *words])) == 2
    assert said in capsys.readouterr().err


def test_summaries_of_recipes_are_whole_sentences(capsys) -> None:
    dispatch(["recipes"])
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row for row in rows if not row.endswith(".")] == []
