"""`CfgNode`: fvcore's, with a closed schema and errors that say what to change.

Everything that is merged (a file with its bases, KEY VALUE pairs, the text in a checkpoint)
is first brought to one flat form, {full key: value of the key's own type}, and then set.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode as _FvcoreNode

from timesformer.config.allowed import AUTO
from timesformer.config.deprecated import DEPRECATED
from timesformer.config.strict_yaml import dump, parse, read_with_bases
from timesformer.utils.errors import ConfigError
from timesformer.utils.text import did_you_mean

CONFIG_SUFFIXES = (".yaml", ".yml", ".pyth")
_CLOSING = {"[": "]", "(": ")"}
_WORDS = {"yes": True, "on": True, "no": False, "off": False}


class CfgNode(_FvcoreNode):
    """A group of keys, as attributes. Its present values define the types that merging accepts."""

    def merge_from_file(self, cfg_filename: str | Path, allow_unsafe: bool = False) -> None:
        """Merge a YAML file and, before it, the files that its `_BASE_` names.

        Args:
            cfg_filename: the file.
            allow_unsafe: fvcore's switch for YAML that runs code; never allowed here.

        Raises:
            ConfigError: anything wrong with a file, a key or a value.
        """
        if allow_unsafe:
            raise ConfigError("allow_unsafe: a config never runs code")
        self._merge(read_with_bases(cfg_filename))

    def merge_from_list(self, cfg_list: Sequence[Any]) -> None:
        """Merge KEY VALUE pairs, e.g. `["SOLVER.BASE_LR", "1e-4"]` from a command line.

        Of pairs with the same key the last one counts, as of options of other programs: what is
        added behind a command changes it.

        Raises:
            ConfigError: a key without a value, or anything wrong with a key or a value.
        """
        source, leaves = "command line", dict(self.leaves())
        check_dashes(cfg_list, leaves)
        check_pairs(cfg_list, leaves)
        pairs = zip(cfg_list[::2], cfg_list[1::2], strict=True)
        self._merge(
            [(source, {k: _from_shell(v, leaves.get(k), f"{source}, {k}")}) for k, v in pairs]
        )

    def merge_from_other_cfg(self, cfg_other: Mapping[str, Any]) -> None:
        """Merge another config or nested dict, under the same rules as a file."""
        self._merge([("merged config", cfg_other)])

    def merge_from_string(self, text: str, source: str) -> None:
        """Merge YAML text, e.g. what `dump` wrote into a checkpoint.

        Args:
            text: the YAML.
            source: where it is from, for error messages.
        """
        self._merge([(source, parse(text, source) or {})])

    def dump(self, **kwargs: Any) -> str:
        """Return the whole config as YAML text that merges back equal."""
        return dump(_plain(self), **kwargs)

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Yield (full key, value) for every key, e.g. ("TRAIN.ENABLE", True)."""
        for key, value in self.items():
            if isinstance(value, CfgNode):
                yield from value.leaves(f"{prefix}{key}.")
            else:
                yield prefix + key, value

    def _merge(self, layers: Sequence[tuple[str, Any]]) -> None:
        ignored: dict[str, str] = {}  # deprecated key -> first source that uses it
        merged: dict[str, Any] = {}
        for source, tree in layers:
            flat, deprecated = conform(tree, self, source)
            merged.update(flat)
            for key in deprecated:
                ignored.setdefault(key, source)
        for key, value in merged.items():
            *groups, name = key.split(".")
            node = self
            for group in groups:
                node = node[group]
            setattr(node, name, value)
        for key, source in ignored.items():
            message = f"{source}: {key} is deprecated and has no effect: {DEPRECATED[key]}"
            warnings.warn(message, FutureWarning, stacklevel=3)


def check_dashes(
    words: Sequence[Any], keys: Collection[str], options: Collection[str] = ()
) -> None:
    """Refuse --KEY VALUE, which argparse would take apart before anybody sees it whole.

    Raises:
        ConfigError: there is one that isn't among the `options`, with how it should be written.
    """
    for word in (word for word in words if isinstance(word, str)):
        name, _, value = word.partition("=")
        key = name[2:].upper()
        if name[:2] == "--" and key in keys and name not in options:
            pair = f"{key} {value or 'VALUE'}"
            raise ConfigError(f"command line: write {pair}, without dashes, not {word}")


def check_pairs(words: Sequence[Any], keys: Collection[str]) -> None:
    """Make sure that words are KEY VALUE pairs, as far as their form goes.

    Raises:
        ConfigError: they aren't, with how they should be written.
    """
    if wrong := next(_wrong_pairs(words, keys), None):
        raise ConfigError(f"command line: {wrong}")


def _wrong_pairs(words: Sequence[Any], keys: Collection[str]) -> Iterator[str]:
    texts = [word if isinstance(word, str) else "" for word in words]  # Python gives any value
    for i, word in enumerate(texts):
        name, equals, value = word.partition("=")
        is_key = i % 2 == 0
        if word.startswith("--") or (is_key and re.match("-[A-Za-z]", word)):
            yield f"option {name} must come before the KEY VALUE pairs"
        if is_key and equals and name.upper() in keys:
            yield f"write {name.upper()} {value or 'VALUE'}, with a space, not {word}"
        if is_key and word.endswith(CONFIG_SUFFIXES):
            yield f"{word} is no key; give a config as --cfg {word}"
        before = "" if is_key else texts[i - 1]
        end = _CLOSING.get(word[:1], "") if before in keys else ""
        end_at = next((j for j in range(i, len(texts)) if end and texts[j].endswith(end)), i)
        if end_at > i:  # the shell has taken it apart at its spaces
            yield f"put a list in quotes: {before} '{' '.join(texts[i : end_at + 1])}'"
        if word == "=" and before in keys:
            yield f"write {before} VALUE, without the equals sign"
        if word in keys and before in keys:
            yield f"{before} has no value: {word}, a key, comes next"
    if len(words) % 2:
        last = repr(words[-1])
        yield f"KEY VALUE pairs expected, e.g. NUM_GPUS 0, but the last word {last} has no partner"


def conform(
    tree: Mapping[str, Any], schema: CfgNode, source: str
) -> tuple[dict[str, Any], list[str]]:
    """Check a nested dict against a schema and flatten it.

    Args:
        tree: groups and keys; a full key with dots is as good as nesting.
        schema: the config whose keys and types count.
        source: where the tree is from, for error messages.

    Returns:
        {full key: value with the schema's type}, and the deprecated keys and groups met.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a key given twice, a wrong type.
    """
    leaves = dict(schema.leaves())
    groups = {key.rpartition(".")[0] for key in leaves}
    flat: dict[str, Any] = {}
    deprecated: list[str] = []

    def walk(node: Mapping[Any, Any], prefix: str) -> None:
        for key, value in node.items():
            full = f"{prefix}{key}"
            parents = {full[:i] for i, letter in enumerate(full) if letter == "."} | {full}
            if old := parents & DEPRECATED.keys():
                deprecated.extend(old - {*deprecated})
            elif full in groups:
                if not isinstance(value, Mapping | None):
                    raise ConfigError(f"{source}: {full} is a group of keys, not {_show(value)}")
                walk(value or {}, f"{full}.")  # a group with nothing under it is harmless
            elif full not in leaves:
                candidates = groups if isinstance(value, Mapping) else leaves
                hint = did_you_mean(full, candidates)
                raise ConfigError(f"{source}: unknown key {full:.80}{hint}")
            elif full in flat:
                raise ConfigError(f"{source}: {full} is given twice")
            else:
                flat[full] = _coerce(value, leaves[full], full, source)

    if not isinstance(tree, Mapping):
        raise ConfigError(f"{source}: expected KEY: VALUE lines, not {_show(tree)}")
    walk(tree, "")
    return flat, deprecated


def _coerce(value: Any, default: Any, key: str, source: str) -> Any:
    """Return ``value`` with the type of ``default``, where that loses nothing."""
    if value == "auto" and key in AUTO:
        return AUTO[key]
    if isinstance(default, list):
        if isinstance(value, str) and value[:1] == "(" and value[-1:] == ")":
            value = parse(f"[{value[1:-1]}]", f"{source}, {key}")  # Python's way to write a list
        if isinstance(value, list | tuple) and value:
            if all(isinstance(item, str) for item in value) and not isinstance(default[0], str):
                words = [word for item in value for word in item.split()]
                if len(words) > len(value):
                    text = f"[{', '.join(words)}]"
                    raise ConfigError(f"{source}: {key}: part the items with commas: {text:.80}")
            return [_coerce(item, default[0], f"an item of {key}", source) for item in value]
    elif isinstance(default, bool):
        if isinstance(value, str) and value.lower() in _WORDS:
            return _WORDS[value.lower()]
        if isinstance(value, bool):
            return value
    elif isinstance(default, float):
        if isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value):
            return float(value)
    elif isinstance(default, int):
        if isinstance(value, int) and not isinstance(value, bool):
            if -(2**63) <= value < 2**63:  # what torch and numpy can take
                return int(value)
            raise ConfigError(f"{source}: {key} is beyond the whole numbers of 64 bits")
    elif isinstance(value, str):
        return value
    expected = {
        bool: "True or False",
        int: "a whole number or auto" if key in AUTO else "a whole number",
        float: "a number",
        str: "text (in quotes if it looks like something else)",
        list: "a list like [1, 2] with something in it",
    }[type(default)]
    raise ConfigError(f"{source}: {key} must be {expected}, not {_show(value)}")


def _from_shell(value: Any, default: Any, source: str) -> Any:
    if not isinstance(value, str):
        return value  # merge_from_list called from Python
    if isinstance(default, str) and value[:1] not in {"'", '"'}:
        return value  # text as it is: a path may look like a number or hold a colon
    return parse(value, source)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def _show(value: Any) -> str:
    if value is None:
        return "nothing"
    try:
        text = repr(dict(value) if isinstance(value, Mapping) else value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        text = "a number too long to show"
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def _plain(node: CfgNode) -> dict[str, Any]:
    return {k: _plain(v) if isinstance(v, CfgNode) else v for k, v in node.items()}
