"""From words on a command line to a checked config."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from small_run import complaint_of

from timesformer.commands.predict import parse_args as predict_args
from timesformer.config.defaults import get_cfg
from timesformer.utils.checkpoint import write_checkpoint
from timesformer.utils.errors import ConfigError, UserError
from timesformer.utils.parser import CommandParser, load_config, load_recipe, parse_args

ROOT = Path(__file__).resolve().parents[2]
CPU = ["NUM_GPUS", "0", "TRAIN.BATCH_SIZE", "4", "GLOBAL_BATCH_SIZE", "0"]


@pytest.fixture
def cfg_file(tmp_path: Path) -> str:
    path = tmp_path / "my.yaml"
    path.write_text("NUM_SHARDS: 4\nSHARD_ID: 1\nRNG_SEED: 5\nSOLVER: {BASE_LR: 1e-3}\n")
    return str(path)


def test_argument_names_of_the_published_tool(cfg_file: str) -> None:
    words = ["--cfg", cfg_file, "--num_shards", "2", "--shard_id", "1"]
    args = parse_args([*words, "--init_method", "tcp://a:1", "NUM_GPUS", "0"])
    assert (args.cfg_file, args.num_shards, args.shard_id) == (cfg_file, 2, 1)
    assert (args.init_method, args.opts) == ("tcp://a:1", ["NUM_GPUS", "0"])
    defaults = parse_args(["--cfg", cfg_file])
    assert (defaults.init_method, defaults.opts) == ("", [])


@pytest.mark.parametrize(
    ("words", "taken"),
    [
        (["a.mp4", "--checkpoint", "w", "b.mp4", "--topk", "3", "c.mp4"], "a.mp4 b.mp4 c.mp4"),
        (["--json", "--checkpoint", "w", "a.mp4", "--topk=3", "b.mp4"], "a.mp4 b.mp4"),
        (
            ["--checkpoint", "w", "a.mp4", "--topk=3", "--", "-b.mp4", "--json"],
            "a.mp4 -b.mp4 --json",
        ),
    ],
)
def test_words_of_a_list_stand_anywhere(words: list[str], taken: str) -> None:
    args = predict_args(words)
    assert " ".join(map(str, args.videos)) == taken
    assert (args.checkpoint, args.topk) == ("w", 3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.mp4"], "required: --checkpoint"),
        (["--checkpoint", "w"], "required: VIDEO|FOLDER|LIST"),
        (["a.mp4", "--checkpoint", "w", "--topkk", "b.mp4"], "unrecognized arguments: --topkk"),
    ],
)
def test_what_is_missing_or_unknown_is_one_line(words: list[str], said: str) -> None:
    told = complaint_of(predict_args, *words)
    assert said in told
    assert told.count("\n") == 1


def test_later_wins(cfg_file: str) -> None:
    cfg = load_config(
        parse_args(["--cfg", cfg_file, *CPU, "RNG_SEED", "6", "SOLVER.LRS", "[1,1e-1,.01]"])
    )
    assert (cfg.NUM_SHARDS, cfg.SHARD_ID, cfg.RNG_SEED, cfg.SOLVER.BASE_LR) == (4, 1, 6, 1e-3)
    assert cfg.SOLVER.LRS == [1.0, 0.1, 0.01]
    assert not cfg.is_frozen()
    words = ["--cfg", cfg_file, "--num_shards", "2", "--shard_id", "0", *CPU, "SHARD_ID", "1"]
    cfg = load_config(parse_args(words))
    assert (cfg.NUM_SHARDS, cfg.SHARD_ID) == (2, 0)


def test_negative_values_are_values(cfg_file: str) -> None:
    with pytest.raises(ConfigError, match="RNG_SEED must be at least 0, not -1"):
        load_config(parse_args(["--cfg", cfg_file, *CPU, "RNG_SEED", "-1"]))


def test_the_merged_config_is_what_is_checked(cfg_file: str) -> None:
    with pytest.raises(ConfigError, match="SHARD_ID 1"):
        load_config(parse_args(["--cfg", cfg_file, "--num_shards", "1", *CPU]))


def test_more_gpus_than_there_are(cfg_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"NUM_GPUS 2: .* has 1 usable GPU;"):
        load_config(parse_args(["--cfg", cfg_file, *CPU, "NUM_GPUS", "2"]))


def test_mistakes_that_argparse_reports(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_args(["NUM_GPUS", "0"])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the following arguments are required: --cfg; see ")
    assert error.count("\n") == 1


def test_only_one_of_two(cfg_file: str) -> None:
    words = ["--cfg", cfg_file, "--num_shards", "1", "--shard_id", "0", *CPU]
    cfg = load_config(parse_args(words), only="train")
    assert (cfg.TRAIN.ENABLE, cfg.TEST.ENABLE) == (True, False)
    cfg = load_config(parse_args(words), only="test")
    assert (cfg.TRAIN.ENABLE, cfg.TEST.ENABLE) == (False, True)
    with pytest.raises(ConfigError, match=r"TRAIN.ENABLE is False: use `timesformer test`, or"):
        load_config(parse_args([*words, "TRAIN.ENABLE", "False"]), only="train")
    with pytest.raises(ConfigError, match=r"TEST.ENABLE is False: use `timesformer train`, or"):
        load_config(parse_args([*words, "TEST.ENABLE", "False"]), only="test")


def test_a_recipe_by_name() -> None:
    args = parse_args(["--cfg", "Synthetic/TimeSformer_divST_8_64", "NUM_GPUS", "0"])
    assert load_recipe(args).TRAIN.DATASET == "synthetic"
    with pytest.raises(ConfigError, match=r"no recipe of that name .*; did you mean Synthetic/"):
        load_recipe(parse_args(["--cfg", "TimeSformer_divST_8_64"]))


@pytest.fixture
def parser() -> CommandParser:
    parser = CommandParser("try", "Try it.\n\nExample:\n  %(prog)s --cfg X", "--cfg FILE [words]")
    parser.add_cfg("a recipe")
    parser.add_splits(("train", "val"))
    parser.add_workers()
    parser.add_argument("--fast", action="store_true")
    parser.add_pairs()
    return parser


@pytest.mark.parametrize(
    ("words", "splits", "opts"),
    [
        ([], [], []),
        (["--splits", "val"], ["val"], []),
        (["--splits", "train", "val", "NUM_GPUS", "0"], ["train", "val"], ["NUM_GPUS", "0"]),
        (["--splits", "val", "--fast", "RNG_SEED", "-1"], ["val"], ["RNG_SEED", "-1"]),
        (["RNG_SEED", "1"], [], ["RNG_SEED", "1"]),
    ],
)
def test_splits_end_where_keys_begin(
    parser: CommandParser, words: list[str], splits: list[str], opts: list[str]
) -> None:
    args = parser.parse(["--cfg", "x", *words])
    assert (args.splits, args.opts, args.cfg_file) == (splits, opts, "x")
    assert args.workers >= 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--splits", "dev"], "--splits 'dev': must be of train, val"),
        (["--workers", "-1"], "--workers -1: must be 0 or more"),
        (["NUM_GPUS", "0", "--fast"], "option --fast must come before the KEY VALUE pairs"),
        (["NUM_GPUS", "--fast"], "option --fast must come before the KEY VALUE pairs"),
        (["NUM_GPUS", "0", "--workers=1"], "option --workers must come before"),
        (["--splits", "val", "NUM_GPUS", "0", "--fast", "X", "--cfg", "y"], "option --cfg must"),
    ],
)
def test_what_the_shared_parser_refuses(parser: CommandParser, words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        parser.parse(["--cfg", "x", *words])


def test_help_names_the_command(parser: CommandParser, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser.parse(["--help"])
    text = capsys.readouterr().out
    assert text.startswith("usage: timesformer try --cfg FILE [words]\n\nTry it.\n\nExample:\n")
    assert "\n  timesformer try --cfg X\n" in text


def test_help_shows_commands_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_args(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for fragment in (
        "--cfg FILE",
        "--num_shards N",
        "tcp://HOST:PORT",
        "KEY VALUE",
    ):
        assert fragment in text


def test_a_wrong_config_is_found_without_importing_torch(cfg_file: str) -> None:
    code = (
        "import sys\n"
        "from timesformer.utils.errors import ConfigError\n"
        "from timesformer.utils.parser import load_config, parse_args\n"
        "try: load_config(parse_args(sys.argv[1:]))\n"
        "except ConfigError as error: print(error, 'torch' in sys.modules)"
    )
    words = [sys.executable, "-c", code, "--cfg", cfg_file, "NUM_GPU", "0"]
    out = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "command line: unknown key NUM_GPU; did you mean NUM_GPUS? False"


def test_a_run_that_only_trained_is_tested(tmp_path: Path) -> None:
    """Its config says TEST.ENABLE False, as `timesformer train` made it."""
    cfg = get_cfg()
    cfg.NUM_GPUS, cfg.TEST.ENABLE = 0, False
    (tmp_path / "checkpoints").mkdir()
    write_checkpoint(tmp_path / "checkpoints" / "checkpoint_epoch_00001.pyth", {"cfg": cfg.dump()})
    words = ["--cfg", str(tmp_path)]
    assert load_config(parse_args(words), only="test").TEST.ENABLE
    assert not load_config(parse_args(words)).TEST.ENABLE
    elsewhere = [*words, "OUTPUT_DIR", str(tmp_path / "scores")]
    assert words[1] == load_config(parse_args(elsewhere), only="test").TEST.CHECKPOINT_FILE_PATH
    assert not load_config(parse_args(elsewhere)).TEST.CHECKPOINT_FILE_PATH
    with pytest.raises(ConfigError, match=r"TEST.ENABLE is False"):
        load_config(parse_args([*words, "TEST.ENABLE", "False"]), only="test")


def test_a_run_without_cfg(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checkpoints").mkdir()
    for words, said in (([], f"give the run as --cfg {tmp_path};"), (["OUTPUT_DIR"], "required")):
        with pytest.raises(SystemExit):
            parse_args([*words, str(tmp_path)])
        assert said in capsys.readouterr().err
