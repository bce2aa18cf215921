"""Files that no config should be: a typed line that says where, or the value that is stated here.

Never another kind of error, a wait or code that runs; a wait of a second is a failure.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from timesformer.config.defaults import get_cfg
from timesformer.config.node import CfgNode
from timesformer.config.strict_yaml import MOST_BYTES, MOST_FILES
from timesformer.config.validate import check
from timesformer.utils.errors import ConfigError
from timesformer.utils.parser import load_recipe, parse_args

CPU = ["NUM_GPUS", "0"]
SECONDS = 10.0  # for one file, on a busy machine; each takes some milliseconds


@pytest.fixture(autouse=True)
def no_wait() -> Iterator[None]:
    """Cut off what waits, also in a call of the system."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def cut(*_: object) -> None:
        raise AssertionError(f"still waiting after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, cut)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(content: str | bytes) -> CfgNode:
    """Read my.yaml of the current folder as a command does."""
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    Path("my.yaml").write_bytes(data)
    return load_recipe(parse_args(["--cfg", "my.yaml", *CPU]))


def refusal(content: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        load(content)
    said = str(caught.value)
    assert said.isprintable(), said
    assert len(said) < 700
    return said


def doubled(levels: int, first: str, form: str) -> str:
    """Names that each stand for the one before, twice: 2 ** levels values in a few lines."""
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{i}: &a{i} {form.format(i - 1)}" for i in range(1, levels)]
    return "\n".join(lines)


BOMB = doubled(40, "[1]", "[*a{0}, *a{0}]")

# (content, what is said)
REFUSED: dict[str, tuple[str | bytes, str]] = {
    # no mapping
    "a list": ("- NUM_GPUS\n- 0", "my.yaml: expected KEY: VALUE lines, not list"),
    "a word": ("NUM_GPUS", "my.yaml: expected KEY: VALUE lines, not str"),
    "a number": ("17", "my.yaml: expected KEY: VALUE lines, not int"),
    "pairs of a shell": ("NUM_GPUS=0", "expected KEY: VALUE lines, not str"),
    "two documents": ("RNG_SEED: 1\n---\nRNG_SEED: 2", "my.yaml, line 2: not valid YAML"),
    "JSON that ends early": ('{"RNG_SEED": 1', "my.yaml, line 1: not valid YAML"),
    # bytes
    "a tab": ("TRAIN:\n\tENABLE: True", "my.yaml, line 2: not valid YAML: found character '\\t'"),
    "not UTF-8": (b"RNG_SEED: 1\n# caf\xe9", "my.yaml, line 2: not a text file in UTF-8"),
    "UTF-16": ("RNG_SEED: 1".encode("utf-16"), "my.yaml, line 1: not a text file in UTF-8"),
    "half a character": ("OUTPUT_DIR: \ud800", "my.yaml, line 1: not a text file in UTF-8"),
    "NUL": ("RNG_SEED: 1\nLOG_PERIOD: \0", "line 2: not valid YAML: the character '\\x00'"),
    "a bell": ("RNG_SEED: 1\n# \a", "my.yaml, line 2: not valid YAML: the character '\\x07'"),
    "weights": (b"PK\x03\x04" + bytes(range(256)), "my.yaml, line "),
    "too large": ("# " + "x" * MOST_BYTES, f"my.yaml: not a config: more than {MOST_BYTES:,} by"),
    "nested without end": ("A: " + "[" * 3000, "my.yaml: nested too deeply"),
    "mappings without end": ("{a: " * 3000, "my.yaml: nested too deeply"),
    # keys
    "a key twice": ("RNG_SEED: 1\nRNG_SEED: 2", "line 2: RNG_SEED was already given in line 1"),
    "a quoted key twice": ('RNG_SEED: 1\n"RNG_SEED": 2', "line 2: RNG_SEED was already given"),
    "a group twice": ("TRAIN: {}\nTRAIN: {}", "line 2: TRAIN was already given in line 1"),
    "nested and with dots": (
        "TRAIN: {BATCH_SIZE: 1}\nTRAIN.BATCH_SIZE: 2",
        "TRAIN.BATCH_SIZE is given twice",
    ),
    "an unknown key": ("SOLVER: {BASELR: 1}", "unknown key SOLVER.BASELR; did you mean SOLVER.BAS"),
    "lower case": ("rng_seed: 1", "unknown key rng_seed; did you mean RNG_SEED?"),
    "the wrong group": ("TRAIN: {NUM_FRAMES: 8}", "did you mean DATA.NUM_FRAMES?"),
    "a dot too many": ("TRAIN..ENABLE: True", "unknown key TRAIN..ENABLE; did you mean TRAIN.ENA"),
    "a dot at the end": ("TRAIN.: {ENABLE: True}", "unknown key TRAIN."),
    "a number as a key": ("1: 2", "unknown key 1"),
    "nothing as a key": ("? \n: 2", "unknown key None"),
    "a list as a key": ("? [A, B]\n: 1", "my.yaml, line 1: a key must be a word"),
    "a line end in a key": ('"A\\nB": 1', "unknown key A\\nB"),
    "a very long key": ("K" * 900 + ": 1", "unknown key " + "K" * 80),
    "a method of the config": ("merge_from_file: x", "unknown key merge_from_file"),
    "a private attribute": ("__class__: x", "unknown key __class__"),
    "_BASE_ in a group": ("TRAIN: {_BASE_: x.yaml}", "unknown key TRAIN._BASE_"),
    # values
    "a group that is a number": ("TRAIN: 3", "TRAIN is a group of keys, not 3 (int)"),
    "a number that is a group": ("RNG_SEED: {A: 1}", "RNG_SEED must be a whole number"),
    "nothing": ("RNG_SEED:", "RNG_SEED must be a whole number, not nothing"),
    "a tilde": ("OUTPUT_DIR: ~", "OUTPUT_DIR must be text"),
    "a list for a number": ("RNG_SEED: [1]", "RNG_SEED must be a whole number, not [1] (list)"),
    "a list for text": ("OUTPUT_DIR: [a]", "OUTPUT_DIR must be text"),
    "a number for a list": ("SOLVER: {STEPS: 11}", "SOLVER.STEPS must be a list"),
    "text for a list": ("DATA: {MEAN: '0.5 0.5'}", "DATA.MEAN must be a list"),
    "an empty list": ("SOLVER: {STEPS: []}", "SOLVER.STEPS must be a list like [1, 2]"),
    "a list of lists": ("SOLVER: {STEPS: [[0]]}", "an item of SOLVER.STEPS must be a whole number"),
    "a mapping for a list": ("SOLVER: {LRS: {a: 1}}", "SOLVER.LRS must be a list"),
    "a whole number that isn't": ("RNG_SEED: 1.5", "RNG_SEED must be a whole number, not 1.5"),
    "1e3 for a whole number": ("RNG_SEED: 1e3", "RNG_SEED must be a whole number, not 1000.0"),
    "octal": ("RNG_SEED: 010", "RNG_SEED must be a whole number, not '010' (str)"),
    "hexadecimal": ("RNG_SEED: 0x10", "RNG_SEED must be a whole number, not '0x10' (str)"),
    "sixties": ("RNG_SEED: 1:30", "RNG_SEED must be a whole number, not '1:30' (str)"),
    "underscores": ("RNG_SEED: 1_000", "RNG_SEED must be a whole number, not '1_000' (str)"),
    "a word for a switch": ("TRAIN: {ENABLE: maybe}", "TRAIN.ENABLE must be True or False"),
    "1 for a switch": ("TRAIN: {ENABLE: 1}", "TRAIN.ENABLE must be True or False, not 1 (int)"),
    "a switch for a number": ("SOLVER: {BASE_LR: yes}", "SOLVER.BASE_LR must be a number"),
    "true for a number": ("RNG_SEED: true", "RNG_SEED must be a whole number, not True (bool)"),
    "a number for text": ("OUTPUT_DIR: 2024", "OUTPUT_DIR must be text (in quotes if"),
    "not a number": ("SOLVER: {BASE_LR: .nan}", "SOLVER.BASE_LR must be a number, not nan"),
    "infinite": ("SOLVER: {BASE_LR: .inf}", "SOLVER.BASE_LR must be a number, not inf"),
    "minus infinite": ("SOLVER: {LRS: [1, -.INF]}", "an item of SOLVER.LRS must be a number"),
    "beyond floats": ("SOLVER: {BASE_LR: 1e999}", "SOLVER.BASE_LR must be a number, not inf"),
    "beyond floats, whole": (f"SOLVER: {{BASE_LR: {'9' * 309}}}", "SOLVER.BASE_LR must be a numb"),
    "beyond 64 bits": ("RNG_SEED: 9223372036854775808", "RNG_SEED is beyond the whole numbers of"),
    "5,000 digits": (f"LOG_PERIOD: 1\nRNG_SEED: {'9' * 5000}", "line 2: a number of 5,000 digits"),
    "a path with a line end": ('OUTPUT_DIR: "a\\nb"', "OUTPUT_DIR 'a\\nb': a path without"),
    "a path with NUL": ('DATA: {PATH_PREFIX: "~a\\0"}', "DATA.PATH_PREFIX '~a\\x00': a path"),
    "half a character in a path": ('OUTPUT_DIR: "~\\ud800"', "OUTPUT_DIR '~\\ud800': a path witho"),
    "a name with a line end": ('TEST: {SAVE_RESULTS_PATH: "a\\nb.npz"}', "TEST.SAVE_RESULTS_PATH"),
    # tags
    "code": ("RNG_SEED: !!python/object/apply:os.mkdir [ran]", "line 1: not valid YAML: could not"),
    "code in a key": ("? !!python/object/apply:os.mkdir [ran]\n: 1", "a key must be a word"),
    "code that is not used": ("DEMO: !!python/object/new:os.mkdir [ran]", "line 1: not valid YAML"),
    "a name of code": ("A: !!python/name:os.system", "line 1: not valid YAML: the tag"),
    "a module": ("A: !!python/module:antigravity", "line 1: not valid YAML: the tag"),
    "a tuple": ("SOLVER: {STEPS: !!python/tuple [0, 1]}", "line 1: not valid YAML"),
    "bytes": ("OUTPUT_DIR: !!binary aGVsbG8=", "line 1: not valid YAML: the tag"),
    "a set": ("SOLVER: {STEPS: !!set {1, 2}}", "SOLVER.STEPS must be a list"),
    "a date": ("OUTPUT_DIR: !!timestamp 2024-01-01", "line 1: not valid YAML: the tag"),
    "a tagged number": ("RNG_SEED: !!int 1:30", "line 1: not valid YAML: the tag"),
    "a huge tagged number": (f"RNG_SEED: !!int 0x{'f' * 5000}", "line 1: not valid YAML: the tag"),
    "a tag of one's own": ("RNG_SEED: !mine 1", "line 1: not valid YAML: the tag !mine"),
    # aliases
    "an alias of nothing": ("RNG_SEED: *seed", "line 1: not valid YAML: found undefined alias"),
    "a pattern": ("TRAIN:\n  FREEZE: *, !head", "(patterns) has to be in quotes"),
    "a name of one": ("LORA:\n  TARGETS: *attn", "(patterns) has to be in quotes"),
    "an exception": ("TRAIN:\n  FREEZE: !head", "(patterns) has to be in quotes"),
    "itself in a list": ("SOLVER:\n  STEPS: &a [0, *a]", "line 2: contains itself, by an alias"),
    "itself in a group": ("TRAIN: &a {TRAIN: *a}", "line 1: contains itself, by an alias"),
    "itself merged": ("TRAIN: &a {<<: *a}", "line 1: contains itself, by an alias"),
    "a billion laughs": (BOMB, "stands for more than 100,000 values"),
    "laughs for a number": (f"{BOMB}\nRNG_SEED: *a39", "stands for more than 100,000 values"),
    "laughs that are merged": (
        doubled(40, "{k: 1}", "{{<<: [*a{0}, *a{0}]}}"),
        "stands for more than 100,000 values",
    ),
    "merging a number": ("<<: 3", "line 1: not valid YAML: expected a mapping"),
    "merging twice": ("A: &a {}\nTRAIN:\n  <<: *a\n  <<: *a", "line 4: << was already given"),
    # bases
    "no base": ("_BASE_: none.yaml", "none.yaml: can't read this config, named by _BASE_"),
    "an empty base": ("_BASE_: ''", "can't read this config, named by _BASE_ in my.yaml: Is a dir"),
    "a folder as base": ("_BASE_: .", "named by _BASE_ in my.yaml: Is a directory"),
    "a number as base": ("_BASE_: 3", "my.yaml: _BASE_ must be a file name or a list of them"),
    "a group as base": ("_BASE_: {a: b}", "my.yaml: _BASE_ must be a file name"),
    "itself as base": ("_BASE_: my.yaml", "leads back to this file: my.yaml -> my.yaml"),
    "itself by another name": ("_BASE_: ./././my.yaml", "my.yaml: _BASE_ leads back to this file"),
    "a base with NUL": ('_BASE_: "a\\0b"', "a\\x00b: can't read this config, named by _BASE_"),
    "a base with a line end": ('_BASE_: "a\\nb"', "a\\nb: can't read this config, named by"),
    "a base of half a character": ('_BASE_: "~\\ud800"', "\\ud800: can't read this config"),
    "a base at home of nobody": ("_BASE_: ~no such user/x.yaml", "~no such user/x.yaml: can't rea"),
    "a base with a long name": (f"_BASE_: {'x' * 300}", "can't read this config, named by _BASE_"),
    "an address as base": ("_BASE_: https://example.org/a.yaml", "can't read this config"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_a_line(name: str, folder: Path) -> None:
    content, said = REFUSED[name]
    message = refusal(content)
    assert said in message
    assert not (folder / "ran").exists()


# (content, key, value)
READ: dict[str, tuple[str | bytes, str, Any]] = {
    "an empty file": ("", "RNG_SEED", 0),
    "only comments": ("# nothing\n# here", "RNG_SEED", 0),
    "only a mark": ("---\n...\n", "RNG_SEED", 0),
    "a byte-order mark": (b"\xef\xbb\xbfRNG_SEED: 7", "RNG_SEED", 7),
    "lines of Windows": (b"RNG_SEED: 7\r\nTRAIN:\r\n  BATCH_SIZE: 64\r\n", "RNG_SEED", 7),
    "JSON": ('{"RNG_SEED": 7, "TRAIN": {"BATCH_SIZE": 64}}', "RNG_SEED", 7),
    "an empty group": ("TRAIN:", "TRAIN.BATCH_SIZE", 64),
    "a key with dots": ("SOLVER.BASE_LR: 1", "SOLVER.BASE_LR", 1.0),
    "an exponent": ("SOLVER: {BASE_LR: 1e-3}", "SOLVER.BASE_LR", 1e-3),
    "a fraction": ("SOLVER: {BASE_LR: .5}", "SOLVER.BASE_LR", 0.5),
    "a whole number as number": ("SOLVER: {BASE_LR: 1}", "SOLVER.BASE_LR", 1.0),
    "yes": ("TENSORBOARD: {ENABLE: yes}", "TENSORBOARD.ENABLE", True),
    "off": ("TENSORBOARD: {ENABLE: OFF}", "TENSORBOARD.ENABLE", False),
    "no, as text": ("DATA: {PATH_PREFIX: no}", "DATA.PATH_PREFIX", "no"),
    "sixties, as text": ("DATA: {PATH_PREFIX: 1:30}", "DATA.PATH_PREFIX", "1:30"),
    "a date, as text": ("DATA: {PATH_PREFIX: 2024-01-01}", "DATA.PATH_PREFIX", "2024-01-01"),
    "text by its tag": ("DATA: {PATH_PREFIX: !!str 2024}", "DATA.PATH_PREFIX", "2024"),
    "the largest seed": ("RNG_SEED: 9223372036854775807", "RNG_SEED", 2**63 - 1),
    "a tuple of Python": ("SOLVER: {STEPS: '(0, 5, 9)'}", "SOLVER.STEPS", [0, 5, 9]),
    "an alias": ("DEMO: {N: &n 5}\nRNG_SEED: *n", "RNG_SEED", 5),
    "a merge": ("DEMO: &e {ENABLE: no}\nTENSORBOARD:\n  <<: *e", "TENSORBOARD.ENABLE", False),
    "a merge that is changed": (
        "DEMO: &e {ENABLE: no}\nTENSORBOARD:\n  <<: *e\n  ENABLE: yes", "TENSORBOARD.ENABLE", True,
    ),
    "merges of what is changed further in": (
        "DEMO:\n  A: &a {ENABLE: no}\n  B: {C: &b {<<: *a, ENABLE: yes}}\nTENSORBOARD: {<<: *b}",
        "TENSORBOARD.ENABLE", True,
    ),
    "quotes in a path": ("DATA: {PATH_PREFIX: 'it''s here'}", "DATA.PATH_PREFIX", "it's here"),
}  # fmt: skip


@pytest.mark.usefixtures("folder")
@pytest.mark.filterwarnings("ignore:my.yaml. DEMO is deprecated:FutureWarning")
@pytest.mark.parametrize("name", READ)
def test_read_as_stated(name: str) -> None:
    content, key, value = READ[name]
    found = dict(load(content).leaves())[key]
    assert (found, type(found)) == (value, type(value))


def test_there_are_enough_of_them() -> None:
    assert len(REFUSED) + len(READ) >= 100


def fifo(path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs FIFOs")
    os.mkfifo(path)


def device(path: Path) -> None:
    if not Path("/dev/zero").exists():
        pytest.skip("needs /dev/zero")
    path.symlink_to("/dev/zero")


def circle_of_links(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("make", [fifo, device])
@pytest.mark.parametrize("name", ["x.yaml", "x.pyth"])
def test_what_would_never_answer(make: Callable[[Path], None], name: str, folder: Path) -> None:
    make(folder / name)
    with pytest.raises(ConfigError if name == "x.yaml" else RuntimeError) as caught:
        load_recipe(parse_args(["--cfg", name]))
    assert f"{name}: " in str(caught.value)
    assert "not a regular file" in str(caught.value)
    if name == "x.yaml":
        said = refusal("_BASE_: x.yaml")
        assert said == (
            "x.yaml: can't read this config, named by _BASE_ in my.yaml: not a regular file, but a "
            "FIFO, a socket or a device"
        )


def test_links_in_a_circle(folder: Path) -> None:
    circle_of_links(folder / "x.yaml")
    assert "x.yaml: can't read this config, named by _BASE_" in refusal("_BASE_: x.yaml")
    with pytest.raises(ConfigError, match=r"x\.yaml: no such file"):
        load_recipe(parse_args(["--cfg", "x.yaml"]))


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ["x" * 300, "~no such user/x.yaml", "a\0b", "~\ud800", "a\nb"])
def test_names_that_no_file_has(name: str) -> None:
    with pytest.raises(ConfigError, match="no such file or run's folder, and no recipe") as caught:
        load_recipe(parse_args(["--cfg", name]))
    assert str(caught.value).isprintable()


@pytest.mark.usefixtures("folder")
def test_a_diamond_of_bases_is_read_once() -> None:
    """Every level names the one before twice: 2 ** 25 ways, 26 files."""
    Path("b0.yaml").write_text("RNG_SEED: 7\nLOG_PERIOD: 1")
    for i in range(1, 26):
        Path(f"b{i}.yaml").write_text(f"_BASE_: [b{i - 1}.yaml, b{i - 1}.yaml]\nLOG_PERIOD: {i}")
    cfg = load("_BASE_: [b25.yaml, b25.yaml]")
    assert (cfg.RNG_SEED, cfg.LOG_PERIOD) == (7, 25)


@pytest.mark.usefixtures("folder")
def test_a_base_that_is_named_twice_counts_where_it_stands_last() -> None:
    """Its first place would be overridden by itself."""
    Path("root.yaml").write_text("RNG_SEED: 1\nLOG_PERIOD: 1")
    Path("left.yaml").write_text("_BASE_: root.yaml\nRNG_SEED: 2")
    Path("right.yaml").write_text("_BASE_: root.yaml\nLOG_PERIOD: 3")
    cfg = load("_BASE_: [left.yaml, right.yaml]")
    assert (cfg.RNG_SEED, cfg.LOG_PERIOD) == (1, 3)


@pytest.mark.usefixtures("folder")
def test_a_chain_of_bases_has_an_end() -> None:
    Path("b0.yaml").write_text("RNG_SEED: 7")
    for i in range(1, MOST_FILES + 1):
        Path(f"b{i}.yaml").write_text(f"_BASE_: b{i - 1}.yaml")
    assert load(f"_BASE_: b{MOST_FILES - 2}.yaml").RNG_SEED == 7
    assert f"b0.yaml: _BASE_ leads to more than {MOST_FILES} files" in refusal(
        f"_BASE_: b{MOST_FILES - 1}.yaml"
    )


@pytest.mark.usefixtures("folder")
def test_a_circle_of_bases_is_named() -> None:
    Path("a.yaml").write_text("_BASE_: b.yaml")
    Path("b.yaml").write_text("_BASE_: [c.yaml, a.yaml]")
    Path("c.yaml").write_text("")
    said = refusal("_BASE_: a.yaml")
    assert said == "a.yaml: _BASE_ leads back to this file: a.yaml -> b.yaml -> a.yaml"


@pytest.mark.parametrize("key", ["RNG_SEED", "SOLVER.BASE_LR", "OUTPUT_DIR", "SOLVER.STEPS"])
def test_numbers_of_python(key: str) -> None:
    """The longest ones have no text: Python refuses to write them."""
    for value in (10**400, 10**5000, [10**5000], float("nan"), float("-inf")):
        with pytest.raises(ConfigError, match=key):
            get_cfg().merge_from_list([key, value])


def test_the_largest_seed_seeds() -> None:
    import torch

    from timesformer.utils.rng import keyed_rng

    cfg = get_cfg()
    cfg.merge_from_list([*CPU, "RNG_SEED", str(2**63 - 1)])
    check(cfg)
    torch.manual_seed(cfg.RNG_SEED)
    keyed_rng("clip", cfg.RNG_SEED, 0, 0)
