"""Imports point one way, in no circle: tools → commands → engine, … → models, datasets → utils."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "timesformer"
FILES = sorted(PACKAGE.rglob("*.py"))
TOOLS = sorted((ROOT / "tools").glob("*.py"))
ROOMS = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
# A room, or one of its modules, → what it may import beside itself.
MAY_IMPORT = {
    "tools": {"commands", "engine", "utils.errors"},  # engine: the published modules' names
    "__main__": {"__version__", "commands", "utils"},
    "commands": {
        *{
            "cluster",
            "studies",
            "engine",
            "prepare",
            "explain",
            "embed",
            "inference",
            "visualization",
        },
        *{"models", "datasets", "clips", "config", "utils"},
    },
    "cluster": {"utils"},
    "studies": {
        *{"__version__", "engine", "prepare", "visualization"},
        *{"models", "datasets", "clips", "config", "utils"},
    },
    "engine": {"__version__", "models", "datasets", "clips", "visualization", "config", "utils"},
    "inference": {
        *{"__version__", "visualization", "models", "datasets", "clips", "utils"},
    },
    "integrations": {"inference", "models", "datasets", "clips", "utils"},
    "explain": {"models", "datasets", "clips", "utils"},
    "embed": {"inference", "models", "datasets", "clips", "visualization", "utils"},
    "prepare": {"datasets", "clips", "config", "utils"},
    "visualization": {"datasets", "utils"},
    "models": {"clips", "config", "utils"},
    "models.create": {"datasets"},  # it stands above both: recipes of the release have class names
    "datasets": {"clips", "config", "utils"},
    "clips": {"config", "utils"},
    "config": {"utils.errors", "utils.files", "utils.launchers", "utils.text"},
    "utils": set(),
    "utils.parser": {"config"},  # the command line ends in a config
    "utils.asked_config": {"config"},
}


def label(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def walk(node: ast.AST, typing_too: bool) -> Iterator[ast.AST]:
    """Every node, also those in functions; without `if TYPE_CHECKING:` unless that is wanted."""
    for child in ast.iter_child_nodes(node):
        for_typing = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if for_typing and not typing_too:
            continue
        yield child
        yield from walk(child, typing_too)


def imported(tree: ast.AST, typing_too: bool = True) -> set[str]:
    """Every name of the package or of tools/ that a file imports, `timesformer.` left out."""
    names = set()
    for node in walk(tree, typing_too):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide where they point"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    ours = {name for name in names if name.split(".")[0] in ("timesformer", "tools")}
    return {name.removeprefix("timesformer.") for name in ours}


def wrong_arrows(place: tuple[str, ...], found: set[str]) -> set[str]:
    """What a file at a place (its room, …, its own name) imports and mustn't."""
    room = place[0]
    allowed = {room} | MAY_IMPORT.get(room, set()) | MAY_IMPORT.get(".".join(place), set())
    wrong = {name for name in found if not any(f"{name}.".startswith(f"{a}.") for a in allowed)}
    if room in ("models", "datasets"):
        wrong |= {name for name in found if f"{name}.".startswith("models.create.")}
    return wrong


@pytest.mark.parametrize("path", [*FILES, *TOOLS], ids=label)
def test_arrows(path: Path) -> None:
    base = ROOT if path in TOOLS else PACKAGE
    wrong = wrong_arrows(path.relative_to(base).with_suffix("").parts, imported(tree_of(path)))
    assert not wrong, f"{label(path)} may not import {wrong}: see MAY_IMPORT"


def test_every_room_says_what_it_may_import() -> None:
    assert MAY_IMPORT.keys() >= ROOMS


def test_a_wrong_arrow_is_seen() -> None:
    text = "def f():\n    from timesformer.models.vit import TimeSformer\n"
    found = imported(ast.parse(text))
    assert found == {"models.vit.TimeSformer"}
    assert wrong_arrows(("datasets", "loader"), found) == found
    assert wrong_arrows(("prepare", "check"), {"engine.train"}) == {"engine.train"}
    assert wrong_arrows(("utils", "text"), {"config.node"}) == {"config.node"}
    assert not wrong_arrows(("utils", "parser"), {"config.node"})
    assert not wrong_arrows(("engine", "train"), found)
    found = {"datasets.lists.class_names", "models.vit"}
    assert wrong_arrows(("models", "vit"), found) == {"datasets.lists.class_names"}
    assert not wrong_arrows(("models", "create"), found)
    assert wrong_arrows(("models", "vit"), {"models.create"}) == {"models.create"}


def graph_of(files: dict[str, ast.AST]) -> dict[str, set[str]]:
    """Modules by name → the modules that each imports, wherever in it, to run."""

    def module(name: str) -> str:
        while name and name not in files:
            name = name.rpartition(".")[0]
        return name

    graph = {}
    for name, tree in files.items():
        found = {module(n) for n in imported(tree, typing_too=False)}
        graph[name] = found - {"", name}
    return graph


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Groups of modules that all lead to each other."""
    reached = {name: set(found) for name, found in graph.items()}
    for middle in graph:
        for found in reached.values():
            if middle in found:
                found |= reached[middle]
    groups = {frozenset(o for o in reached[n] if n in reached[o]) for n in graph}
    return [set(group) for group in groups if group]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def test_no_circle() -> None:
    found = circles(graph_of({module_name(path): tree_of(path) for path in FILES}))
    assert found == []


def test_a_circle_through_a_function_is_seen() -> None:
    texts = {
        "a": "from timesformer.b import x",
        "b": "def f():\n    from timesformer.c.d import y",
        "c.d": "import timesformer.a",
        "e": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from timesformer.f import z",
        "f": "from timesformer.e import z",
    }
    found = circles(graph_of({name: ast.parse(text) for name, text in texts.items()}))
    assert found == [{"a", "b", "c.d"}]


def rooms_opened(tree: ast.AST) -> set[str]:
    """Rooms whose files a module opens: `… / "room" / …`, `files("timesformer.room")`."""
    words = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            words |= {s.split("/")[0] for s in strings([node.right])}
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if name == "joinpath":
                words |= {s.split("/")[0] for s in strings(node.args)}
            elif name == "files":
                words |= {s.removeprefix("timesformer.").split(".")[0] for s in strings(node.args)}
    return words & ROOMS


def strings(nodes: list[ast.expr]) -> set[str]:
    return {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}


@pytest.mark.parametrize("path", FILES, ids=label)
def test_no_room_opens_the_files_of_another(path: Path) -> None:
    inside = path.relative_to(PACKAGE)
    others = rooms_opened(tree_of(path)) - {inside.parts[0]}
    assert not others, f"{label(path)} opens files of {others}: it should ask their modules"


@pytest.mark.parametrize(
    "text",
    [
        'files("timesformer") / "datasets" / "labels"',
        'files("timesformer.datasets") / "labels"',
        'importlib.resources.files("timesformer.datasets.lists")',
        'Path(__file__).parents[1] / "datasets/labels"',
        'HERE.joinpath("datasets", "labels")',
    ],
)
def test_an_opened_room_is_seen(text: str) -> None:
    assert rooms_opened(ast.parse(text)) == {"datasets"}
    assert not rooms_opened(ast.parse(text.replace("datasets", "x")))


def heavy_imports(module: str) -> list[str]:
    """Which packages that take seconds to import a module imports, beyond what torch does."""
    heavy = {"cv2", "tensorboard", "matplotlib", "timm", "torchvision", "huggingface_hub"}
    heavy |= {"transformers", "triton", "sympy", "torch._dynamo", "torch._inductor", "fvcore.nn"}
    heavy |= {"av", "sklearn", "onnxruntime"}
    program = (
        f"import sys, torch; had = {{*sys.modules}}; import {module}; "
        f"print(*({heavy} & sys.modules.keys()) - had)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_the_model_needs_torch_and_little_more() -> None:
    """No video or plotting library, no compiler, no other models."""
    assert heavy_imports("timesformer.models.vit") == []


def test_to_predict_needs_torch_and_a_decoder() -> None:
    """All registered models included: torchvision would double the time until a video is read."""
    assert heavy_imports("timesformer.commands.predict, timesformer.models.build") == ["av"]


def test_processes_that_write_videos_do_without_torch() -> None:
    """Each would take half a gigabyte and seconds for it."""
    program = "import sys, timesformer.prepare.synthetic_writer; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False"]
