"""What the package writes is whole or not there: each call that writes is found and counted."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "timesformer"
NAMES = {"savez", "savez_compressed", "save", "save_file", "savefig", "write_bytes", "write_text"}
NAMES |= {"touch", "SummaryWriter", "fdopen"}
# Calls that write without `written_whole`, by file and function, and why that is right.
EXEMPT = {
    ("engine/best.py", "update"): "a checkpoint: torch_file",
    ("engine/train.py", "run_epochs"): "a checkpoint: torch_file",
    ("engine/state.py", "finish"): "a checkpoint: torch_file",
    ("engine/state.py", "save_within"): "a checkpoint: torch_file",
    ("engine/state.py", "save"): "a checkpoint: torch_file",
    ("studies/sweep.py", "_start"): "what a run says: it is added to the end",
    ("utils/files.py", "append_line"): "a log: lines are added to its end",
    ("utils/files.py", "open_regular"): "opens for reading",
    ("utils/files.py", "written_whole"): "syncs what is written",
    ("utils/run_lock.py", "_put"): "a lock: a file that is linked, if there is none",
    ("utils/run_lock.py", "_put_in_two_steps"): "the same where there are no links",
    ("utils/run_lock.py", "_remove"): "opens for reading, and to be locked",
    ("utils/torch_file.py", "_replace"): "a temporary file of its own, synced, then renamed",
    ("utils/sharded_file.py", "_save"): "into a temporary folder, which `_finish` renames",
    ("utils/sharded_file.py", "_finish"): "into that folder, synced, then renamed",
    ("inference/formats/onnx.py", "_save"): "into a folder that `export` makes, checks and moves",
    ("inference/formats/torch_export.py", "write"): "into that folder",
    ("inference/formats/compiled.py", "write"): "into that folder",
    ("inference/formats/seal.py", "append"): "into that folder",
    ("models/weights/save.py", "_write_files"): "a temporary folder of its own, then renamed",
    ("models/weights/save.py", "_sync"): "syncs what is written",
    ("embed/cache.py", "cached_features"): "a cache, which writes itself whole",
    ("embed/features.py", "thumbnail"): "into memory",
    ("inference/page_html.py", "_picture"): "into memory",
    ("inference/page_html.py", "timeline_block"): "into memory",
    ("visualization/embedding_page.py", "_shrunk"): "into memory",
    ("visualization/predictions.py", "_rasterise"): "into memory",
    ("visualization/tensorboard.py", "add_scalars"): "a log: events are added to its end",
    ("prepare/tar_writer.py", "_open"): "into `written_whole`'s file, which close() completes",
    ("prepare/transcode.py", "_write"): "what transcode() gives it, a temporary file",
}


def writes(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if isinstance(call.func, ast.Name) and name == "write_text":
        return False  # the one of utils/files
    if name != "open":
        return name in NAMES
    modes = [a.value for a in call.args[:2] if isinstance(a, ast.Constant)]
    modes += [k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)]
    return any(
        isinstance(mode, str) and set(mode) & set("wax+") and len(mode) < 4 for mode in modes
    )


def is_whole(node: ast.AST) -> bool:
    """Tell whether it is a `with` of `written_whole`."""
    if not isinstance(node, ast.With):
        return False
    return any("written_whole(" in ast.unparse(item.context_expr) for item in node.items)


def writers(node: ast.AST, function: str = "", whole: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield (function, whether written whole) of every call that writes."""
    if isinstance(node, ast.FunctionDef):
        function = node.name
    if isinstance(node, ast.Call) and writes(node):
        yield function, whole
    for child in ast.iter_child_nodes(node):
        yield from writers(child, function, whole or is_whole(node))


def test_every_file_is_written_whole() -> None:
    found: dict[tuple[str, str], bool] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for function, whole in writers(ast.parse(path.read_text(encoding="utf-8"))):
            place = (path.relative_to(PACKAGE).as_posix(), function)
            found[place] = found.get(place, True) and whole
    assert {place for place, whole in found.items() if not whole} == set(EXEMPT)
    assert sum(found.values()) >= 7
