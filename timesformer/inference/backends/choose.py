"""Which backend computes a model: the one asked for, or the fastest here by a measurement.

Letters: B clips, T frames, H×W pixels, K classes.
"""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import torch

from timesformer.inference.backends import AUTO, BACKENDS, BLOCKS, KINDS, TORCH
from timesformer.inference.backends.cache import Tell, digest, folder_of, of_backend
from timesformer.inference.export import about_of
from timesformer.inference.formats import About
from timesformer.inference.measure import noise, timed
from timesformer.inference.predictor import Predictor
from timesformer.models.compiling import compile_blocks
from timesformer.utils.errors import ConfigError, UserError
from timesformer.utils.files import make_folder, open_regular, write_text
from timesformer.utils.text import counted

SECONDS, PASSES = 1.0, 25  # of each backend that is measured
_FORMAT = 1  # of what is remembered


class Choice(NamedTuple):
    """What a measurement gave.

    Attributes:
        backend: the fastest.
        milliseconds: of a clip, by backend, the fastest first.
        without: why others weren't measured, by backend.
        threads: that each computed with.
    """

    backend: str
    milliseconds: dict[str, float]
    without: dict[str, str]
    threads: int

    def told(self) -> str:
        """Say it in a line."""
        times = ", ".join(f"{name} {ms:.4g} ms" for name, ms in self.milliseconds.items())
        others = "".join(f"; no {name}: {why}" for name, why in self.without.items())
        threads = counted(self.threads, "thread")
        return f"backend {self.backend}, by the time of a clip ({threads}): {times}{others}"


def with_backend(model: Predictor, backend: str, source: str, tell: Tell) -> Predictor:
    """Return the same model, computed by a backend.

    Args:
        model: as `load` gives it.
        backend: one of BACKENDS; auto is the fastest on the CPU, and torch on other devices.
        source: name of the weights, for messages.
        tell: gets lines for people.

    Raises:
        ConfigError: there is no such backend; or nothing can be compiled here.
        UserError: it computes on the CPU in full precision, and other is asked for; or as
            `of_backend`.
        ModuleNotFoundError: its packages aren't installed.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"backend {backend!r:.60}: one of {', '.join(BACKENDS)}")
    if backend == TORCH:
        return model
    if backend == BLOCKS:
        compile_blocks("--backend blocks", model.model)
        model.backend = BLOCKS
        return model
    if model.device.type != "cpu":
        if backend == AUTO:
            tell(f"backend {TORCH}: the model is on {model.device}, where others can't compute")
            return model
        raise UserError(f"--backend {backend}: computes on the CPU: add --device cpu")
    if backend != AUTO:
        if model.amp != "none":
            raise UserError(f"--amp: {backend} computes in float32: leave it out")
        return of_backend(model, _about(model, source), backend, source, tell)
    return _fastest(model, source, tell)


def _fastest(model: Predictor, source: str, tell: Tell) -> Predictor:
    """Return the model as the fastest backend computes it: by an earlier measurement, or a new."""
    said = _about(model, source)
    without = {name: why for name, kind in KINDS.items() if (why := kind.missing())}
    asked = _asked(model.amp, without)
    path = folder_of(said) / f"choice-{digest(asked)}.json"
    choice = _remembered(path, asked, {TORCH, _name(model), *KINDS})
    if choice is not None:
        tell(f"{choice.told()}; measured before, and again if {path} is deleted")
        if choice.backend == _name(model):
            return model
        if choice.backend == TORCH:
            return Predictor(model.model, model.testing)
        try:
            return of_backend(model, said, choice.backend, source, tell)
        except UserError as error:  # its file is gone, and can't be made any more
            without[choice.backend] = str(error)
            tell(f"{error}; the others are measured")
    able = {_name(model): model}
    if model.amp != "none":
        able[TORCH] = Predictor(model.model, model.testing)
    for name in KINDS:
        if name not in without:
            try:
                other = of_backend(model, said, name, source, tell)
                other.score(noise(said, 1))
            except UserError as error:
                without[name] = str(error)
            else:
                able[name] = other
    choice = _measured(able, without, said)
    tell(choice.told())
    try:
        make_folder(path.parent).chmod(0o700)  # no backend may have made it
        write_text(path, json.dumps({"asked": asked, "choice": choice._asdict()}, indent=1) + "\n")
    except (OSError, UserError) as error:
        tell(
            f"{error}, so what is fastest is measured again next time; TIMESFORMER_CACHE names "
            "another folder"
        )
    return able[choice.backend]


def _about(model: Predictor, source: str) -> About:
    return about_of(model.model, "pixels", "fp32", source)


def _name(model: Predictor) -> str:
    """Say what computes a model that no backend has taken."""
    return TORCH if model.amp == "none" else f"{TORCH} in {model.amp}"


def _asked(amp: str, without: dict[str, str]) -> dict[str, Any]:
    """Return what a measurement depends on beside the model."""
    return {
        "format": _FORMAT,
        "amp": amp,
        "threads": torch.get_num_threads(),
        "processor": [platform.machine(), torch.backends.cpu.get_cpu_capability()],
        "host": platform.node(),
        "versions": {name: kind.versions() for name, kind in KINDS.items() if name not in without},
        "without": dict(without),  # more are found by trying
    }


def _remembered(path: Path, asked: dict[str, Any], known: Collection[str]) -> Choice | None:
    """Return what was measured under the same conditions; None if nothing was, or is readable.

    Args:
        path: the file.
        asked: the conditions.
        known: names of what may have been chosen.
    """
    try:
        with open_regular(path) as file:
            found = json.loads(file.read())
        choice = Choice(**found["choice"])
        choice.told()  # it has what is said
        if found["asked"] != asked or choice.backend not in known:
            return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return choice


def _measured(able: dict[str, Predictor], without: dict[str, str], said: About) -> Choice:
    """Time all, in turn, for about a second each."""
    computes = [predictor.score for predictor in able.values()]
    took = timed(computes, noise(said, 1), PASSES, SECONDS * len(able))
    medians = dict(zip(able, map(statistics.median, took), strict=True))
    order = dict(sorted(medians.items(), key=lambda item: item[1]))
    return Choice(next(iter(order)), order, without, torch.get_num_threads())
