"""The README's and the documents' blocks of code run as they stand, in their order.

Python runs for real, in one namespace for each document, with a very small model in place of the
published ones. The shell runs for real too, but programs that train, fetch or test stand in: they
note the words that the shell gives them, and these are held against the real parsers and schema.
`slow` then runs what was noted with a small model and few videos.

An HTML comment before a block, `<!-- not run: WHY -->`, keeps it from being run. It is parsed all
the same, and its commands are held against the parsers.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_run import RECIPE, SMALL
from video_fixtures import numbered_frames, write_video

import timesformer
from timesformer.__main__ import dispatch
from timesformer.config.defaults import get_cfg
from timesformer.config.recipes import find_recipe
from timesformer.config.validate import check
from timesformer.models.create import create_model
from timesformer.utils.checkpoint import write_checkpoint
from timesformer.utils.parser import CommandParser

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"^(?:<!-- not run: (?P<why>[^>]+?) -->\n+)?```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
SHELL = ("bash", "sh")
PROGRAMS = ("timesformer", "torchrun", "make", "pytest", "curl", "srun")
KNOBS = {"img_size": 32, "embed_dim": 24, "depth": 4, "num_heads": 3}
PUBLISHED = ("TimeSformer_divST_8x32_224_K400.pyth", "k400.pyth")
FOLDERS = (
    *("facebook/timesformer-base-finetuned-k400", "path/to/anything"),
    "runs/synthetic/divided",
)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    code: str
    why: str | None  # it isn't run

    @property
    def name(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, m.start("code")) + 1, m["language"], m["code"], m["why"])
        for m in FENCE.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
only = {
    language: [block for block in BLOCKS if block.language in languages]
    for language, languages in {"shell": SHELL, "yaml": ("yaml",), "text": ("",)}.items()
}


def test_every_block_is_treated() -> None:
    fences = sum(len(re.findall(r"^\s*```", p.read_text(), re.MULTILINE)) for p in PAGES)
    assert fences == 2 * len(BLOCKS), "a block isn't closed, or is set in"
    comments = sum(p.read_text().count("<!-- not run") for p in PAGES)
    assert comments == sum(block.why is not None for block in BLOCKS), "a comment before no block"
    for block in BLOCKS:
        treatment = f"not run: {block.why}" if block.why else f"run: {block.language or 'text'}"
        print(f"{block.name}: {treatment}")
        assert block.language in {"", "python", "yaml", *SHELL}, block.name


@pytest.mark.parametrize("block", only["text"], ids=lambda block: block.name)
def test_text_is_no_command(block: Block) -> None:
    words = {line.split()[0] for line in block.code.splitlines() if line.strip()}
    assert not words & {*PROGRAMS, "python", "pip", "import", "from"}, "say which language it is"


@pytest.mark.parametrize("block", only["yaml"], ids=lambda block: block.name)
def test_yaml_is_a_recipe(block: Block, tmp_path: Path) -> None:
    recipe = yaml.safe_load(block.code)
    if block.why:  # of another program
        assert isinstance(recipe, dict)
        return
    folder = next(
        path.parent for path in (ROOT / "configs").rglob("*.yaml") if path.name == recipe["_BASE_"]
    )
    (tmp_path / "my.yaml").write_text(block.code.replace("_BASE_: ", f"_BASE_: {folder}/"))
    get_cfg().merge_from_file(tmp_path / "my.yaml")


# ---------------------------------------------------------------------------- Python


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a video and the files that the documents name, of a small model."""
    model = create_model("timesformer_divST_8x32_224_K400", **KNOBS)
    for name in PUBLISHED:
        write_checkpoint(tmp_path / name, {"model_state": model.state_dict()})
    for name in FOLDERS:
        model.save_pretrained(tmp_path / name)
    write_video(tmp_path / "video.mp4", numbered_frames(30))
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timesformer, "create_model", partial(create_model, **KNOBS), raising=False)
    return tmp_path


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    "page", sorted({b.page for b in BLOCKS if b.language == "python"}), ids=lambda page: page.name
)
def test_python_runs(page: Path) -> None:
    space: dict[str, Any] = {"__name__": page.stem}
    for block in blocks_of(page):
        if block.language == "python":
            code = compile("\n" * (block.line - 1) + block.code, page.name, "exec")
            if block.why is None:
                exec(code, space)
    if page == PAGES[0]:
        assert space["clips"].shape == (1, 3, 8, 32, 32)
        assert space["logits"].shape == (1, 400)
        assert len(space["tokens"]) == 4


@pytest.mark.parametrize("block", [b for b in BLOCKS if (b.why or "").startswith("tests/")])
def test_another_test_runs_it(block: Block) -> None:
    assert block.page.name in (ROOT / str(block.why)).read_text()


# ---------------------------------------------------------------------------- shell


def recorded(block: Block, folder: Path) -> list[list[str]]:
    """Runs a block; returns the words with which it calls each of `PROGRAMS`."""
    programs, records = folder / "bin", folder / "records"
    for made in (programs, records, folder / "lists", folder / "ucfTrainTestlist"):
        made.mkdir()
    for name in PROGRAMS:
        stub = programs / name
        stub.write_text(
            f'#!/bin/sh\nn=$(ls "{records}" | wc -l)\n'
            f'printf "%s\\0" {name} "$@" > "{records}/$(printf %04d "$n")"\n'
        )
        stub.chmod(0o755)
    (folder / "ucfTrainTestlist/trainlist01.txt").write_text("A/v_A_g01_c01.avi 1\n")
    (folder / "ucfTrainTestlist/testlist01.txt").write_text("A/v_A_g02_c01.avi\n")
    (folder / "testTrainMulti_7030_splits").mkdir()
    splits = "a b.avi 1\nc.avi 2 \nd.avi 0\n"
    (folder / "testTrainMulti_7030_splits/wave_test_split1.txt").write_text(splits)
    code = block.code.replace("KEY VALUE …", "NUM_GPUS 0")
    assert "…" not in code, "what a reader must add is said in a comment"
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=folder,
        check=True,
        timeout=20,
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"},
    )
    return [path.read_text().split("\0")[:-1] for path in sorted(records.iterdir())]


def check_words(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    program, *words = words
    if program == "timesformer":
        command, *words = words
        parse = CommandParser.parse

        found = []

        def caught(self: CommandParser, argv: list[str] | None) -> None:
            found.append(parse(self, argv))
            raise SystemExit(0)  # nothing is done

        module = import_module(f"timesformer.commands.{command.replace('-', '_')}")
        with monkeypatch.context() as patch:
            patch.setattr(CommandParser, "parse", caught)
            with pytest.raises(SystemExit):
                module.main(words)
        (args,) = found
        if getattr(args, "cfg_file", None):
            cfg = get_cfg()
            cfg.merge_from_file(RECIPE if args.cfg_file == "FILE" else find_recipe(args.cfg_file))
            cfg.merge_from_list(args.opts)
            check(cfg)
    elif program == "torchrun":
        from torch.distributed.run import get_args_parser

        args = get_args_parser().parse_args(words)
        assert args.module
        check_words([args.training_script, *args.training_script_args], monkeypatch)
    elif program == "make":
        assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "pytest":
        assert (ROOT / words[0]).exists()
    elif program == "srun" and "timesformer" in words:
        check_words(words[words.index("timesformer") :], monkeypatch)
    else:
        assert words, program


@pytest.mark.parametrize("block", only["shell"], ids=lambda block: block.name)
def test_shell_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "k400.pyth").touch()
    calls = recorded(block, tmp_path)
    for words in calls:
        check_words(words, monkeypatch)
    if "testTrainMulti" in block.code:
        assert (tmp_path / "lists/train.csv").read_text() == "wave/a b.avi\n"
        assert (tmp_path / "lists/test.csv").read_text() == "wave/c.avi\n"
    else:
        assert calls


@pytest.mark.slow
@pytest.mark.parametrize("block", [b for b in only["shell"] if not b.why], ids=lambda b: b.name)
def test_commands_run(
    block: Block, tmp_path: Path, synthetic_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = recorded(block, tmp_path)
    model = create_model("timesformer_divST_8x32_224_K400", **KNOBS)
    model.save_pretrained(tmp_path / "SRC")
    (tmp_path / "FILE").write_text(f"_BASE_: {RECIPE}\nDATA: {{PATH_TO_DATA_DIR: data/synthetic}}")
    (tmp_path / "data").mkdir()
    if not any(words[1] == "make-synthetic" for words in calls):
        (tmp_path / "data/synthetic").symlink_to(synthetic_dir)
    (tmp_path / "FOLDER").symlink_to(synthetic_dir)
    monkeypatch.chdir(tmp_path)
    small = [str(word) for pair in SMALL.items() for word in pair]
    more = {"run": small, "profile": small}
    more["make-synthetic"] = ["--train", "24", "--val", "6", "--test", "12", "--processes", "1"]
    for program, command, *words in calls:
        assert program == "timesformer", "say why it isn't run"
        dispatch([command, *words, *more.get(command, [])])
