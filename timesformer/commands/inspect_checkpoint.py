"""Verify a checkpoint and say what is in it, or in what two of them differ.

Of a run's folder it verifies all checkpoints and describes the newest sound one. It also takes
folders of save_pretrained and Hugging Face, and other people's files; of these only what torch
or their own format notices is noticed, for they carry no digest. Two of different layouts are
compared under the same names.

It ends with status 0 where all is sound, and two are equal to the bit; with 1 where something is
damaged or not finite, or they differ. Keys of the config that say nothing about the numbers (a
run's folder, how often it logs) are shown and don't count. 2: it can't be read.

Examples:
  timesformer inspect-checkpoint runs/a
  timesformer inspect-checkpoint runs/a/checkpoints/checkpoint_epoch_00005.pyth runs/b
  timesformer inspect-checkpoint a.pyth exported_folder --weights
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from timesformer.engine.inspection import (
    DamagedError,
    Found,
    are_equal,
    damaged_checkpoints,
    differences,
    find,
)
from timesformer.utils.files import expand_home, is_folder
from timesformer.utils.parser import CommandParser
from timesformer.utils.text import counted

SHOWN = 20  # lines of a part


def main(argv: Sequence[str] | None = None) -> None:
    """Describe one, or compare two."""
    parser = CommandParser("inspect-checkpoint", __doc__)
    parser.add_argument("source", metavar="FILE|RUN", help="a file, or a folder of either kind")
    parser.add_argument("other", nargs="?", metavar="OTHER", help="to compare it with")
    parser.add_argument("--weights", action="store_true", help="compare the weights alone")
    parser.add_argument("--json", action="store_true", help="print all that is known, as JSON")
    args = parser.parse(argv)
    if args.other is None:
        parser.refuse(args, ["--weights"], "there is nothing to compare with")
    sources = [expand_home(word) for word in (args.source, args.other) if word is not None]
    said: dict[str, Any] = {"sources": [], "damaged": {}}
    found: list[Found] = []
    for source in sources:
        if is_folder(source):
            said["damaged"] |= {
                str(Path(source) / "checkpoints" / name): why
                for name, why in damaged_checkpoints(Path(source))[1].items()
            }
        try:
            found.append(find(source))
            said["sources"].append(found[-1].about)
        except DamagedError as error:
            said["damaged"][source] = str(error).removeprefix(f"{source}: ")
    bad = bool(said["damaged"]) or any(about["not_finite"] for about in said["sources"])
    if args.other is not None and len(found) == 2:
        said["differences"] = differences(found[0], found[1], args.weights)
        said["equal"] = are_equal(said["differences"])
        bad = bad or not said["equal"]
    try:
        print(json.dumps(said, indent=1, default=str) if args.json else "\n".join(_lines(said)))
    finally:
        sys.stdout.flush()
    if bad:
        sys.exit(1)


def _lines(said: Mapping[str, Any]) -> Iterator[str]:
    for about in said["sources"]:
        yield from _described(about, alone=len(said["sources"]) == 1)
    for path, why in said["damaged"].items():
        yield f"{path}: {why}"
    if "differences" in said:
        for part, differing in said["differences"].items():
            yield from _part(part, differing)
        yield "equal" if said["equal"] else "they differ"


def _part(part: str, differing: Mapping[str, Any] | Sequence[str]) -> Iterator[str]:
    """Say in what a part of two sources differs."""
    names = {
        "weights": "weights: the same to the bit",
        "gathered": "what the optimizer has gathered: the same to the bit",
        "config": "config: the same",
        "rest": "all else: the same",
    }
    if not differing:
        if part in names:
            yield names[part]
        return
    title = {
        "gathered": "gathered beside the weights",
        "rest": "all else",
        "elsewhere": "config, which says nothing about the numbers",
    }
    yield f"{title.get(part, part)}: {len(differing):,} differ"
    lines = [
        f"  {name}" + (f": {_both(differing[name])}" if isinstance(differing, Mapping) else "")
        for name in differing
    ]
    yield from lines[:SHOWN]
    if len(lines) > SHOWN:
        yield f"  … and {len(lines) - SHOWN:,} more: --json has them all"


def _both(value: Any) -> str:
    return f"{value[0]} → {value[1]}" if isinstance(value, list) else str(value)


def _described(about: Mapping[str, Any], alone: bool) -> Iterator[str]:
    """Say what is in a source; of one alone also how its config differs from the defaults."""
    yield about["file"]
    if about["bytes"] is not None:
        digest = about["digest"]
        sound = f"sound, SHA-256 {digest}" if digest else "it carries no digest to hold it against"
        yield f"  file: {about['bytes']:,} bytes; {sound}"
    if "after" in about:
        best = "".join(f", {k} {v}" for k, v in about.get("validation", {}).items() if k != "epoch")
        yield f"  of a run, after {about['after']}{best}"
    yield f"  model: {about['model']}"
    average = "; there is a moving average" if about["average"] else ""
    yield (
        f"  weights: {about['parameters']:,} numbers in {counted(about['weights'], 'tensor')}, "
        f"{about['dtype'] or 'none'}{average}"
    )
    if optimizer := about.get("optimizer"):
        yield (
            f"  optimizer: {optimizer['method'] or 'not said which'}, "
            f"{', '.join(optimizer['gathers'])}; {optimizer['bytes']:,} bytes"
        )
    if bad := about["not_finite"]:
        yield f"  NOT FINITE: {', '.join(bad[:5])}{', …' if len(bad) > 5 else ''}"
    else:
        yield "  all numbers are finite"
    names = about["class_names"]
    several = ", …" if len(names) > 5 else ""
    yield f"  classes: {', '.join(names[:5]) + several if names else 'no names'} ({len(names):,})"
    if about["train_list"]:
        yield f"  training list: SHA-256 {about['train_list']}"
    if alone:
        for part in ("preprocessing", "config"):
            if about[part]:
                where = " (what differs from the defaults)" if part == "config" else ""
                yield f"  {part}{where}:"
                yield from (f"    {key}: {value}" for key, value in about[part].items())
