"""Patterns of names in one text: "*, !head" is all names but those of the head."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from timesformer.utils.errors import ConfigError
from timesformer.utils.text import did_you_mean


def selected(names: Iterable[str], patterns: str, key: str, kind: str = "") -> set[str]:
    """Return the names that patterns select.

    They are parted by commas and applied in their order: a glob selects names, and with ! before it
    takes such out again. It stands for whole parts of a name, at any place: `temporal_*` and
    `blocks.[0-3]` select blocks.2.temporal_fc.weight, `attn` doesn't select temporal_attn.qkv.

    Args:
        names: dotted names.
        patterns: the text; empty selects none.
        key: of the config, for messages.
        kind: what the names are of, if not all are there, for messages.

    Raises:
        ConfigError: a pattern matches nothing, an exception nothing that is selected, or nothing is
            selected though the text isn't empty.
    """
    known, found = list(names), set[str]()
    for word in filter(None, patterns.replace(",", " ").split()):
        glob = word.removeprefix("!")
        hits = {name for name in known if _matches(name, glob)}
        if not hits:
            parts = {run for name in known for run in _runs(name)}
            nothing = f"no {kind}" if kind else "nothing"
            raise ConfigError(f"{key}: {nothing} is called {glob!r:.80}{did_you_mean(glob, parts)}")
        if word == glob:
            found |= hits
        elif not hits & found:
            raise ConfigError(
                f"{key}: {word!r:.80} is an exception, and no pattern before it matches these: the "
                "order is that of .gitignore, e.g. '*, !head'"
            )
        else:
            found -= hits
    if patterns and not found:
        raise ConfigError(f"{key} {patterns!r:.200} selects nothing: see `timesformer keys {key}`")
    return found


def _matches(name: str, glob: str) -> bool:
    return any(fnmatchcase(run, glob) for run in _runs(name))


def _runs(name: str) -> list[str]:
    """Return all runs of whole parts: a.b -> a, a.b, b."""
    parts = name.split(".")
    return [".".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1)]
