"""YAML without its traps: `1e-4` is a number, `no` is a word, a key given twice is an error."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from timesformer.utils.errors import ConfigError
from timesformer.utils.files import expand_home, open_regular

BASE_KEY = "_BASE_"
# Far above what any config needs: what is larger is a mistake, or made to take for ever.
MOST_BYTES = 200_000  # of a file
MOST_FILES = 100  # with all bases
MOST_VALUES = 100_000  # of a file, each alias counted with all that it stands for
MOST_DIGITS = 309  # of a whole number; the largest float has as many
_IN_QUOTES = "; text that begins with * or ! (patterns) has to be in quotes"

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

    def get_single_node(self) -> yaml.Node | None:
        """Look at the document before anything is made of it."""
        node = super().get_single_node()
        if node is not None:
            self._count(node, {})
        return node

    def _count(self, node: yaml.Node, counts: dict[int, int]) -> int:
        """Count the values that a node stands for; `counts` has those that are known, 0 if open."""
        line, known = node.start_mark.line + 1, counts.get(id(node))
        if known == 0:
            raise ConfigError(f"line {line}: contains itself, by an alias")
        if known is not None:
            return known
        counts[id(node)] = 0
        if isinstance(node, yaml.ScalarNode):
            self._check_scalar(node, line)
            inner = []
        elif isinstance(node, yaml.MappingNode):
            _check_keys(node)
            inner = [part for pair in node.value for part in pair]
        else:
            inner = node.value
        total = 1 + sum(self._count(part, counts) for part in inner)
        if total > MOST_VALUES:
            raise ConfigError(f"line {line}: stands for more than {MOST_VALUES:,} values")
        counts[id(node)] = total
        return total

    def _check_scalar(self, node: yaml.ScalarNode, line: int) -> None:
        plain = node.style is None
        tag = self.resolve(yaml.ScalarNode, node.value, (plain, not plain))
        if node.tag not in (tag, "tag:yaml.org,2002:str"):  # `!!int "1:30"` would be ninety
            reason = f"the tag {node.tag} means nothing here"
            if node.tag.startswith("!"):
                reason += _IN_QUOTES
            raise ConfigError(f"line {line}: not valid YAML: {reason}")
        if tag.endswith(":int") and len(node.value) > MOST_DIGITS:
            raise ConfigError(f"line {line}: a number of {len(node.value):,} digits")


def _check_keys(node: yaml.MappingNode) -> None:
    first: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError(f"line {line}: a key must be a word")
        if (key.tag, key.value) in first:
            earlier = first[key.tag, key.value]
            raise ConfigError(f"line {line}: {key.value:.80} was already given in line {earlier}")
        first[key.tag, key.value] = line


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
        ConfigError: it isn't valid YAML, gives a key twice, or is larger than a config can be.
    """
    _check_size(len(text), source)
    try:
        return yaml.load(text, Loader=_Loader)
    except ConfigError as error:
        raise ConfigError(f"{source}, {error}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        alias = "alias" in f"{error.context} {error.problem}"
        hint = _IN_QUOTES if alias else ""
        raise ConfigError(f"{source}{where}: not valid YAML: {error.problem}{hint}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        reason = f"the character {chr(error.character)!r} can't stand there"
        raise ConfigError(f"{source}, line {line}: not valid YAML: {reason}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{source}: not valid YAML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply for a config") from None


def _check_size(size: int, source: str) -> None:
    if size > MOST_BYTES:
        raise ConfigError(f"{source}: not a config: more than {MOST_BYTES:,} bytes")


def dump(tree: dict[str, Any], **kwargs: Any) -> str:
    """Write a tree as YAML that reads back equal, here and with a plain YAML loader."""
    return yaml.dump(tree, Dumper=_Dumper, **kwargs)


def read_with_bases(path: str | Path) -> list[tuple[str, Any]]:
    """Read a file and the files its `_BASE_` names, which are relative to itself.

    Each is read once, however often it is named.

    Args:
        path: a YAML file.

    Returns:
        (file name, parsed tree without `_BASE_`) for each file; later ones override earlier ones.

    Raises:
        ConfigError: a file is missing, unreadable, not YAML, or is its own base; or there are more
            than any config needs.
    """
    return list(_Bases().layers(Path(expand_home(path))).values())


class _Bases:
    """The files that a config is made of."""

    def __init__(self) -> None:
        self._layers: dict[str, dict[str, tuple[str, Any]]] = {}  # of the files that are done
        self._open: dict[str, Path] = {}  # the files that led here, each the base of the one before

    def layers(self, path: Path) -> dict[str, tuple[str, Any]]:
        """Return (name, tree) by true path of a file and its bases, in the order of merging.

        Of a base that is named twice the last place counts: there it would override itself.
        """
        text = self._text(path)
        identity = os.path.realpath(path)
        if identity in self._open:
            names = [str(p) for p in self._open.values()]
            circle = " -> ".join([*names[list(self._open).index(identity) :], str(path)])
            raise ConfigError(f"{path}: {BASE_KEY} leads back to this file: {circle}")
        if identity in self._layers:
            return self._layers[identity]
        if len(self._layers) + len(self._open) >= MOST_FILES:
            raise ConfigError(f"{path}: {BASE_KEY} leads to more than {MOST_FILES} files")
        tree, bases = _parse_file(text, path)
        self._open[identity] = path
        found: dict[str, tuple[str, Any]] = {}
        for base in bases:
            # An absolute base stays as it is.
            for name, layer in self.layers(path.parent / expand_home(base)).items():
                found.pop(name, None)
                found[name] = layer
        del self._open[identity]
        found[identity] = (str(path), tree)
        self._layers[identity] = found
        return found

    def _text(self, path: Path) -> str:
        try:
            with open_regular(path) as file:
                data = file.read(MOST_BYTES + 1)
            _check_size(len(data), str(path))
            return data.decode("utf-8")
        except OSError as error:
            *_, last = [None, *self._open.values()]
            wanted_by = f", named by {BASE_KEY} in {last}" if last else ""
            reason = f"can't read this config{wanted_by}: {error.strerror}"
            raise ConfigError(f"{path}: {reason}") from None
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise ConfigError(f"{path}, line {line}: not a text file in UTF-8") from None


def _parse_file(text: str, path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return a file's tree without `_BASE_`, and what that names."""
    tree = parse(text, str(path))
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected KEY: VALUE lines, not {type(tree).__name__}")
    bases = tree.pop(BASE_KEY, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{path}: {BASE_KEY} must be a file name or a list of them")
    return tree, bases
