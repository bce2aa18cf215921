"""Reading and merging: YAML traps, bases, types, unknown and deprecated keys, round trip."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from timesformer.config.defaults import get_cfg
from timesformer.config.deprecated import DEPRECATED
from timesformer.config.node import CfgNode
from timesformer.utils.errors import ConfigError


def write(folder: Path, text: str, name: str = "my.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def merged(folder: Path, text: str) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(write(folder, text))
    return cfg


def value(cfg: CfgNode, key: str) -> Any:
    return dict(cfg.leaves())[key]


# (key, text, value): from a file and from a command line alike
READINGS = [
    ("SOLVER.BASE_LR", "1e-4", 1e-4),
    ("SOLVER.BASE_LR", "1E+2", 100.0),
    ("SOLVER.BASE_LR", "-.5e1", -5.0),
    ("SOLVER.BASE_LR", "3", 3.0),
    ("SOLVER.LRS", "[1, 1e-1, 1e-2]", [1.0, 0.1, 0.01]),
    ("SOLVER.STEPS", "(0, 5)", [0, 5]),
    ("DATA.MEAN", "[0, 1, .5]", [0.0, 1.0, 0.5]),
    ("TRAIN.ENABLE", "False", False),
    ("TRAIN.ENABLE", "false", False),
    ("TRAIN.ENABLE", "no", False),
    ("DATA.PATH_PREFIX", "no", "no"),
    ("DATA.PATH_PREFIX", "1:30", "1:30"),
    ("DATA.PATH_PREFIX", "2024-01-01", "2024-01-01"),
    ("DATA.PATH_LABEL_SEPARATOR", '"\\t"', "\t"),
    ("DATA.PATH_LABEL_SEPARATOR", "'::'", "::"),
    ("NUM_GPUS", "0", 0),
]


@pytest.mark.parametrize(("key", "text", "expected"), READINGS)
def test_readings(tmp_path: Path, key: str, text: str, expected: object) -> None:
    from_file = value(merged(tmp_path, f"{key}: {text}"), key)
    cfg = get_cfg()
    cfg.merge_from_list([key, text])
    for found in (from_file, value(cfg, key)):
        assert found == expected
        assert type(found) is type(expected)
        if isinstance(expected, list):
            assert [type(x) for x in found] == [type(x) for x in expected]


def test_command_line_text_is_taken_as_it_is() -> None:
    cfg = get_cfg()
    pairs = ["OUTPUT_DIR", "2024", "DATA.PATH_PREFIX", "a: b #c", "DATA.CLASS_NAMES", "[x]"]
    cfg.merge_from_list([*pairs, "DATA.PATH_LABEL_SEPARATOR", ","])
    assert (cfg.OUTPUT_DIR, cfg.DATA.PATH_PREFIX) == ("2024", "a: b #c")
    assert (cfg.DATA.CLASS_NAMES, cfg.DATA.PATH_LABEL_SEPARATOR) == ("[x]", ",")


def test_of_a_key_given_twice_the_last_value_counts() -> None:
    """As of options of other programs: what is added behind a command changes it."""
    cfg = get_cfg()
    cfg.merge_from_list(["RNG_SEED", "1", "LOG_PERIOD", "2", "RNG_SEED", "3"])
    assert (cfg.RNG_SEED, cfg.LOG_PERIOD) == (3, 2)


def test_python_values_and_tuples_merge() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.STEPS", (0, 3), "SOLVER.BASE_LR", 1, "TRAIN.ENABLE", False])
    assert cfg.SOLVER.STEPS == [0, 3]
    assert type(cfg.SOLVER.BASE_LR) is float
    cfg.merge_from_other_cfg({"TRAIN": {"BATCH_SIZE": 2}})
    assert cfg.TRAIN.BATCH_SIZE == 2


# (file, fragments that the message must hold)
BAD_FILES = [
    ("SOLVER:\n  BASELR: 1", ["my.yaml", "SOLVER.BASELR", "did you mean SOLVER.BASE_LR?"]),
    ("TRAIN:\n  NUM_FRAMES: 8", ["TRAIN.NUM_FRAMES", "did you mean DATA.NUM_FRAMES?"]),
    ("SOLVR:\n  BASE_LR: 1", ["unknown key SOLVR", "did you mean SOLVER?"]),
    ("num_gpus: 1", ["num_gpus", "did you mean NUM_GPUS?"]),
    ("TENSORBOARD:\n  LOGDIR: x", ["did you mean TENSORBOARD.LOG_DIR?"]),
    ("QQQQ: 1", ["my.yaml", "unknown key QQQQ"]),
    ("1: 2", ["unknown key 1"]),
    ("TRAIN:\n  ENABLE: True\n  ENABLE: False", ["my.yaml", "line 3", "ENABLE", "line 2"]),
    ("{NUM_GPUS: 1, NUM_GPUS: 2}", ["line 1", "NUM_GPUS"]),
    ("TRAIN: {}\nNUM_GPUS: 1\nTRAIN: {}", ["line 3", "TRAIN", "line 1"]),
    ("TRAIN.ENABLE: True\nTRAIN:\n  ENABLE: False", ["TRAIN.ENABLE", "given twice"]),
    ("TRAIN: 3", ["TRAIN is a group"]),
    ("NUM_GPUS:\n  A: 1", ["NUM_GPUS must be a whole number"]),
    ("NUM_GPUS:", ["NUM_GPUS must be a whole number, not nothing"]),
    ("NUM_GPUS: 1.5", ["NUM_GPUS must be a whole number", "1.5 (float)"]),
    ("NUM_GPUS: True", ["NUM_GPUS must be a whole number", "True (bool)"]),
    ("NUM_GPUS: 010", ["NUM_GPUS must be a whole number", "'010'"]),
    ("SOLVER: {BASE_LR: fast}", ["SOLVER.BASE_LR must be a number", "'fast' (str)"]),
    ("SOLVER: {BASE_LR: True}", ["SOLVER.BASE_LR must be a number"]),
    ("SOLVER: {BASE_LR: .nan}", ["SOLVER.BASE_LR must be a number", "nan"]),
    ("SOLVER: {STEPS: 11}", ["SOLVER.STEPS must be a list"]),
    ("SOLVER: {STEPS: []}", ["SOLVER.STEPS must be a list"]),
    ("SOLVER: {STEPS: [0, 1.5]}", ["an item of SOLVER.STEPS must be a whole number"]),
    ("TRAIN: {ENABLE: 1}", ["TRAIN.ENABLE must be True or False"]),
    ("OUTPUT_DIR: 2024", ["OUTPUT_DIR must be text", "2024 (int)"]),
    ("- a\n- b", ["my.yaml", "KEY: VALUE"]),
    ("A: [1", ["my.yaml", "line 1", "not valid YAML"]),
    ("A: !!python/name:os.system", ["my.yaml", "not valid YAML"]),
    ("? [a]\n: 1", ["my.yaml", "line 1"]),
    ("A: \x00", ["my.yaml", "not valid YAML"]),
    ("_BASE_: none.yaml", ["none.yaml", "_BASE_", "my.yaml"]),
    ("_BASE_: my.yaml", ["my.yaml", "leads back"]),
    ("_BASE_: 3", ["my.yaml", "_BASE_ must be"]),
]


@pytest.mark.parametrize(("text", "fragments"), BAD_FILES)
def test_bad_file(tmp_path: Path, text: str, fragments: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        merged(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


BAD_PAIRS = [
    (["SOLVER.BASELR", "1"], ["command line", "SOLVER.BASELR", "did you mean SOLVER.BASE_LR?"]),
    (["NUM_GPUS=0"], ["command line: write NUM_GPUS 0, with a space, not NUM_GPUS=0"]),
    (["RNG_SEED", "1", "num_gpus=0"], ["write NUM_GPUS 0, with a space, not num_gpus=0"]),
    (["NUM_GPUS="], ["write NUM_GPUS VALUE, with a space"]),
    (["NUM_GPUS", "=", "0"], ["write NUM_GPUS VALUE, without the equals sign"]),
    (["--NUM_GPUS", "0"], ["write NUM_GPUS VALUE, without dashes, not --NUM_GPUS"]),
    (["OUTPUT_DIR", "NUM_GPUS", "0"], ["OUTPUT_DIR has no value: NUM_GPUS, a key, comes next"]),
    (["OUTPUT_DIR", "NUM_GPUS", "0", "RNG_SEED"], ["OUTPUT_DIR has no value: NUM_GPUS"]),
    (["my.yaml", "NUM_GPUS", "0"], ["my.yaml is no key; give a config as --cfg my.yaml"]),
    (["my.yaml"], ["give a config as --cfg my.yaml"]),
    (["NUM_GPUS", "0", "-h"], ["option -h must come before the KEY VALUE pairs"]),
    (["NUM_GPUS:", "0"], ["unknown key NUM_GPUS:; did you mean NUM_GPUS?"]),
    (["NUM_GPUS", "0", "TRAIN.ENABLE"], ["KEY VALUE", "TRAIN.ENABLE"]),
    (["NUM_GPUS", "0", "--shard_id", "1"], ["write SHARD_ID VALUE, without dashes"]),
    (["TRAIN", "3"], ["TRAIN is a group"]),
    (["SOLVER.STEPS", "[0,"], ["command line, SOLVER.STEPS", "not valid YAML"]),
    (["SOLVER.STEPS", "(0,[)"], ["SOLVER.STEPS", "not valid YAML"]),
    (["DATA.MEAN", "[.5,", ".5,", ".5]"], ["put a list in quotes: DATA.MEAN '[.5, .5, .5]'"]),
    (["DATA.MEAN", "(.5,", ".5)", "NUM_GPUS"], ["put a list in quotes: DATA.MEAN '(.5, .5)'"]),
    (["DATA.MEAN", "[.5 .5 .5]"], ["DATA.MEAN: part the items with commas: [.5, .5, .5]"]),
    (["LOG_PERIOD", "often"], ["LOG_PERIOD must be a whole number"]),
    (["_BASE_", "x.yaml"], ["unknown key _BASE_"]),
]


@pytest.mark.parametrize(("pairs", "fragments"), BAD_PAIRS)
def test_bad_pairs(pairs: list[str], fragments: list[str]) -> None:
    cfg = get_cfg()
    with pytest.raises(ConfigError) as caught:
        cfg.merge_from_list(pairs)
    for fragment in fragments:
        assert fragment in str(caught.value)
    assert cfg == get_cfg(), "a failed merge must change nothing"


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: can't read this config: No such file"):
        get_cfg().merge_from_file(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="can't read"):
        get_cfg().merge_from_file(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"A: \xff\xfe")
    with pytest.raises(ConfigError, match=r"bytes\.yaml, line 1: not a text file"):
        get_cfg().merge_from_file(tmp_path / "bytes.yaml")


def test_bases_are_relative_to_the_file_and_the_file_wins(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path, "NUM_GPUS: 4\nTRAIN: {BATCH_SIZE: 4, AMP: bf16}\nRNG_SEED: 1", "root.yaml")
    write(tmp_path / "deep", "_BASE_: ../root.yaml\nTRAIN: {BATCH_SIZE: 8}", "middle.yaml")
    write(tmp_path / "deep", "RNG_SEED: 2", "other.yaml")
    path = write(tmp_path, "_BASE_: [deep/middle.yaml, deep/other.yaml]\nNUM_GPUS: 2")
    cfg = get_cfg()
    cfg.merge_from_file(path)
    assert (cfg.NUM_GPUS, cfg.TRAIN.BATCH_SIZE, cfg.TRAIN.AMP, cfg.RNG_SEED) == (2, 8, "bf16", 2)


def test_an_error_in_a_base_names_the_base(tmp_path: Path) -> None:
    write(tmp_path, "NUM_GPU: 4", "root.yaml")
    with pytest.raises(ConfigError, match=r"root\.yaml: unknown key NUM_GPU"):
        merged(tmp_path, "_BASE_: root.yaml")


def test_empty_file_and_empty_group_change_nothing(tmp_path: Path) -> None:
    assert merged(tmp_path, "# nothing yet") == get_cfg()
    assert merged(tmp_path, "TRAIN:\n  # BATCH_SIZE: 3") == get_cfg()


PUBLISHED_STYLE = """
TRAIN:
  ENABLE: True
  DATASET: kinetics
  BATCH_SIZE: 8
  CHECKPOINT_TYPE: pytorch
DATA:
  PATH_TO_DATA_DIR: /path/to/kinetics
  NUM_FRAMES: 8
  INPUT_CHANNEL_NUM: [3]
  DECODING_BACKEND: pyav
TIMESFORMER:
  ATTENTION_TYPE: 'divided_space_time'
SOLVER:
  BASE_LR: 0.005
  WEIGHT_DECAY: 1e-4
MODEL:
  MODEL_NAME: vit_base_patch16_224
  ARCH: vit
  DROPOUT_RATE: 0.5
TENSORBOARD:
  ENABLE: True
  MODEL_VIS: {ENABLE: False, TOPK: 3}
BN:
  USE_PRECISE_STATS: True
  NUM_BATCHES_PRECISE: 200
RESNET: {DEPTH: 50}
AVA: {ENABLED: False, ANY_TYPO: 1}
"""


def test_published_style_file_loads_with_one_warning_a_key(tmp_path: Path) -> None:
    base = write(tmp_path, PUBLISHED_STYLE, "published.yaml")
    text = f"_BASE_: {base.name}\nBN: {{FREEZE: True}}\nMODEL: {{ARCH: x}}\nNUM_GPUS: 4"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cfg = merged(tmp_path, text)
    assert (cfg.TRAIN.BATCH_SIZE, cfg.SOLVER.WEIGHT_DECAY, cfg.NUM_GPUS) == (8, 1e-4, 4)
    expected = """TRAIN.CHECKPOINT_TYPE DATA.INPUT_CHANNEL_NUM MODEL.ARCH
        MODEL.DROPOUT_RATE TENSORBOARD.MODEL_VIS BN RESNET AVA"""
    messages = [str(warning.message) for warning in caught]
    assert sorted(m.split(": ")[1].split()[0] for m in messages) == sorted(expected.split())
    assert all(warning.category is FutureWarning for warning in caught)
    assert any("MODEL.ARCH is deprecated" in m and "use MODEL.MODEL_NAME" in m for m in messages)


@pytest.mark.parametrize("key", DEPRECATED)
def test_every_deprecated_key_is_accepted_once(key: str) -> None:
    cfg = get_cfg()
    full = key if "." in key else f"{key}.ENABLE"
    with pytest.warns(FutureWarning) as caught:
        cfg.merge_from_list([full, "1", full, "2"])
    assert len(caught) == 1
    assert f"{key} is deprecated" in str(caught[0].message)
    assert cfg == get_cfg()


def test_a_typo_beside_deprecated_keys_still_raises(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key MODEL\.ARCHI"):
        merged(tmp_path, "MODEL: {ARCHI: x}")


def test_dump_round_trips() -> None:
    cfg = get_cfg()
    cfg.OUTPUT_DIR = "1e-4"  # text that looks like something else must come back as text
    cfg.DATA.PATH_PREFIX = "no"
    cfg.DATA.CLASS_NAMES = "010"
    cfg.DATA.PATH_TO_DATA_DIR = "2024-01-01"
    cfg.DATA.PATH_LABEL_SEPARATOR = "\t"
    cfg.SOLVER.BASE_LR = 1e-5
    cfg.SOLVER.LRS = [1.0, 1e-7, 0.1 + 0.2]
    text = cfg.dump()
    again = get_cfg()
    again.merge_from_string(text, "checkpoint.pyth")
    assert again == cfg
    assert dict(again.leaves()) == dict(cfg.leaves())
    plain = yaml.safe_load(text)  # other programs read it the same way
    assert (plain["OUTPUT_DIR"], plain["SOLVER"]["BASE_LR"]) == ("1e-4", 1e-5)
    assert (plain["DATA"]["PATH_PREFIX"], plain["DATA"]["CLASS_NAMES"]) == ("no", "010")
    other = get_cfg()
    other.merge_from_other_cfg(CfgNode.load_cfg(text))
    assert other == cfg


def test_text_from_a_checkpoint_names_its_source_in_errors() -> None:
    with pytest.raises(ConfigError, match=r"^model\.pyth: unknown key FOO"):
        get_cfg().merge_from_string("FOO: 1", "model.pyth")
    with pytest.raises(ConfigError, match=r"^model\.pyth: expected KEY: VALUE lines"):
        get_cfg().merge_from_string("- NUM_GPUS", "model.pyth")


def test_a_config_never_runs_code(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="never runs code"):
        get_cfg().merge_from_file(write(tmp_path, "NUM_GPUS: 1"), allow_unsafe=True)
