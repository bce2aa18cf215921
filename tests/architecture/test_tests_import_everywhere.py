"""Tests are collected on every system: what Windows hasn't is named in functions alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
MODULES = {"fcntl", "grp", "pwd", "resource", "termios", "multiprocessing.forkserver"}
NAMES = {
    *("SIGKILL", "SIGHUP", "SIGALRM", "SIGSTOP", "SIGUSR1", "SIGUSR2", "AF_UNIX"),
    *("fork", "geteuid", "getuid", "killpg", "mkfifo", "setsid", "sched_getaffinity"),
}


def test_nothing_of_unix_is_needed_for_importing_tests() -> None:
    """The module that is missing would end the collection of all others."""
    found = [
        f"{path.relative_to(TESTS)}:{line}: {name}"
        for path in sorted(TESTS.rglob("*.py"))
        for line, name in unix_at_import(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found


def test_what_is_found() -> None:
    """Decorators and defaults run at import, bodies don't."""
    text = """
import resource
from multiprocessing import forkserver
@mark(signal.SIGKILL)
def test(x=os.fork):
    import fcntl
    os.mkfifo(x)
class Child:
    limit = os.getuid
    def kill(self): signal.SIGKILL
"""
    lines = [line for line, _ in unix_at_import(ast.parse(text))]
    assert lines == [2, 3, 4, 5, 9]


def unix_at_import(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines and names of what importing a module asks of Unix."""
    if isinstance(node, ast.Import):
        yield from ((node.lineno, a.name) for a in node.names if a.name in MODULES)
    if isinstance(node, ast.ImportFrom):
        names = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        yield from ((node.lineno, str(name)) for name in names & MODULES)
    if isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield node.lineno, node.attr
    inside: list[ast.AST] = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        inside = [*node.decorator_list, node.args]
    if isinstance(node, ast.Lambda):
        inside = [node.args]
    for child in inside:
        yield from unix_at_import(child)
