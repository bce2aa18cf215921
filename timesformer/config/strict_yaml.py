"""YAML without its traps: `1e-4` is a number, `no` is a word, a key given twice is an error."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from timesformer.utils.errors import ConfigError

BASE_KEY = "_BASE_"

# The scalars of YAML 1.2. PyYAML follows 1.1, where 1e-4 is a string, `no` is False, 010 is
# eight, 1:30 is ninety and 2024-01-01 is a date.
_SCALARS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("merge", r"<<", "<"),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own attribute)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(f"line {line}: a key must be a word")
            if (key.tag, key.value) in first:
                earlier = first[key.tag, key.value]
                raise ConfigError(f"line {line}: {key.value} was already given in line {earlier}")
            first[key.tag, key.value] = line
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Quote a string if either this loader or a plain YAML loader would read something else."""


for _name, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), list(_first)
        )


def parse(text: str, source: str) -> Any:
    """Parse one YAML document.

    Args:
        text: the document.
        source: file name or the like, for error messages.

    Raises:
        ConfigError: it isn't valid YAML, or gives a key twice.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except ConfigError as error:
        raise ConfigError(f"{source}, {error}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{source}{where}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{source}: not valid YAML: {reason}") from None


def dump(tree: dict[str, Any], **kwargs: Any) -> str:
    """Write a tree as YAML that reads back equal, here and with a plain YAML loader."""
    return yaml.dump(tree, Dumper=_Dumper, **kwargs)


def read_with_bases(path: str | Path, seen: tuple[Path, ...] = ()) -> list[tuple[str, Any]]:
    """Read a file and the files its `_BASE_` names, which are relative to itself.

    Args:
        path: a YAML file.
        seen: the files that led here, to notice a circle.

    Returns:
        (file name, parsed tree without `_BASE_`) for each file; later ones override earlier ones.

    Raises:
        ConfigError: a file is missing, unreadable, not YAML, or is its own base.
    """
    path = Path(path).expanduser()
    if path.resolve() in seen:
        raise ConfigError(f"{path}: {BASE_KEY} leads back to this file")
    try:
        tree = parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        wanted_by = f", named by {BASE_KEY} in {seen[-1]}" if seen else ""
        raise ConfigError(f"{path}: can't read this config{wanted_by}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file: {error.reason}") from None
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected KEY: VALUE lines, not {type(tree).__name__}")
    bases = tree.pop(BASE_KEY, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{path}: {BASE_KEY} must be a file name or a list of them")
    layers: list[tuple[str, Any]] = []
    for base in bases:
        base_path = path.parent / Path(base).expanduser()  # an absolute base stays as it is
        layers += read_with_bases(base_path, (*seen, path.resolve()))
    return [*layers, (str(path), tree)]
