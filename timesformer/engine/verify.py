"""Holding the first steps of a run against their repetition, by the traces of both."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from timesformer.engine.trace import NAME
from timesformer.utils.errors import UserError
from timesformer.utils.files import RUN_HOLDS, is_folder, open_regular
from timesformer.utils.text import counted

SMALL = 1e-4
"""Share of the norm of all weights below which the norm of a tensor isn't asked for its digits."""


class Start(NamedTuple):
    """One start of a run, and the steps after it that were traced.

    Attributes:
        head: what it began with.
        steps: a line each, from step 1 on, without a gap.
    """

    head: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]

    def __str__(self) -> str:
        epochs, steps = self.head["first"]
        return f"the start at epoch {epochs + 1}, step {steps + 1}"


def read_trace(run: Path) -> list[Start]:
    """Return the starts in a run's trace, in their order.

    A line that a killed run didn't finish is left out.

    Raises:
        UserError: there is no trace, or it isn't one.
    """
    path = run / NAME
    try:
        with open_regular(path) as file:
            lines = file.read().decode("utf-8", "replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        what = "this run has no trace" if is_folder(run) else f"no such folder; {RUN_HOLDS}"
        raise UserError(f"{run}: {what} ({NAME}, which TRAIN.TRACE_STEPS writes)") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from error
    starts: list[tuple[Mapping[str, Any], list[Mapping[str, Any]]]] = []
    for number, text in enumerate(lines, 1):
        try:
            line = json.loads(text)
            if "start" in line:
                _ = line["config"], line["first"][1], line["tensors"], line["weights"]
                starts.append((line, []))
            elif line["step"] == len(starts[-1][1]) + 1:
                _ = line["clips"], float.fromhex(line["loss"]), float.fromhex(line["norm"])
                starts[-1][1].append(line)
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            if number < len(lines):
                why = f"{type(error).__name__}: {error}"
                raise UserError(
                    f"{path}, line {number}: isn't what a run writes ({why})"
                ) from error
    if not starts:
        raise UserError(f"{path}: no start is in it")
    return [Start(head, steps) for head, steps in starts]


class Difference(NamedTuple):
    """Something of a step that isn't what it was.

    Attributes:
        step: 0 is before the first.
        what: clips, loss, gradient norm, or the name of a weight.
        size: relative; infinite where there is no more or less.
    """

    step: int
    what: str
    size: float

    def __str__(self) -> str:
        when = f"after step {self.step}" if self.step else "before the first step"
        size = "" if self.size == float("inf") else f" (by {self.size:.2g} of its size)"
        return f"{when}: {self.what}{size}"


def differences(then: Start, now: Start, steps: int, clips: bool) -> list[Difference]:
    """Return all that differs, in the order in which it comes about.

    Args:
        then: what was traced.
        now: its repetition.
        steps: to be compared.
        clips: whether the main process had the same clips of each step.

    Raises:
        UserError: they are of different models, or the repetition made fewer steps.
    """
    if then.head["tensors"] != now.head["tensors"]:
        raise UserError("the model has other weights than the run's: their names differ")
    if len(now.steps) < steps:
        raise UserError(f"only {counted(len(now.steps), 'step')} of {steps} could be repeated")
    found = _of_weights(0, then.head, now.head, then.head["tensors"])
    for old, new in zip(then.steps[:steps], now.steps, strict=False):
        step = old["step"]
        if clips and old["clips"] != new["clips"]:
            found.append(Difference(step, "clips", float("inf")))
        for name, what in (("loss", "loss"), ("norm", "gradient norm")):
            if old[name] != new[name]:
                a, b = float.fromhex(old[name]), float.fromhex(new[name])
                found.append(Difference(step, what, relative(a, b)))
        if "weights" in old and "weights" in new:
            found += _of_weights(step, old, new, then.head["tensors"])
    return found


def relative(a: float, b: float, least: float = 0.0) -> float:
    """Return the difference of two numbers as a share of the larger one, or of `least`."""
    size = max(abs(a), abs(b), least)
    share = abs(a - b) / size if size else 0.0
    return share if share == share else float("inf")


def _of_weights(
    step: int, old: Mapping[str, Any], new: Mapping[str, Any], names: Sequence[str]
) -> list[Difference]:
    least = SMALL * sum(norm * norm for _, norm in old["weights"]) ** 0.5
    pairs = zip(names, old["weights"], new["weights"], strict=True)
    return [
        Difference(step, name, relative(a, b, least))
        for name, (was, a), (is_now, b) in pairs
        if was != is_now
    ]


def verdict(found: Sequence[Difference], compared: str, tolerance: float) -> tuple[int, list[str]]:
    """Return the exit status, 0 or 1, and what to say.

    Args:
        found: what differs.
        compared: what was compared, in words.
        tolerance: relative.
    """
    if not found:
        return 0, [f"equal bit for bit: {compared}"]
    largest = max(found, key=lambda one: one.size)
    beyond = next((one for one in found if one.size > tolerance), None)
    if beyond is None:
        return 0, [
            f"within tolerance {tolerance:g}: {compared}",
            f"largest difference {largest}",
            f"not bit for bit from here on: {found[0]}",
        ]
    lines = [f"differs: {compared}", f"beyond tolerance {tolerance:g} from here on: {beyond}"]
    if beyond != found[0]:
        lines.append(f"not bit for bit from here on: {found[0]}")
    others = {one.what for one in found if one.step == beyond.step} - {beyond.what}
    if others:
        lines.append(f"{counted(len(others), 'other thing')} differ{'s' * (len(others) == 1)} then")
    return 1, lines


def other_facts(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in words what of two entries of environment.json differs that numbers may follow."""
    names = (
        *("version", "git", "python", "packages", "ffmpeg", "cuda", "devices", "cpu", "threads"),
        *("ranks", "deterministic", "lists", "weights"),
    )
    lines: list[str] = []
    for name in names:
        old, new = then.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            keys = [key for key in (*old, *(new.keys() - old.keys())) if key != "source"]
            lines += [
                f"{name} {key}: {old.get(key)} → {new.get(key)}"
                for key in keys
                if old.get(key) != new.get(key) and not (name == "lists" and key == "val")
            ]
        elif old != new:
            lines.append(f"{name}: {old} → {new}")
    return lines
