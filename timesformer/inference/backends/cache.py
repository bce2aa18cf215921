"""Files that backends compute, made of a model once and kept.

CACHE/backends/WEIGHTS-CLIP/BACKEND-VERSIONS/model.SUFFIX, where CACHE is $TIMESFORMER_CACHE, else
timesformer in $XDG_CACHE_HOME, else ~/.cache/timesformer. Anything in it may be deleted, and what
nobody used for UNUSED days is when another file is made: the time of BACKEND-VERSIONS is that of
its last use.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from timesformer.inference.backends import KINDS
from timesformer.inference.export import checked
from timesformer.inference.exported import ExportedModel, open_exported
from timesformer.inference.formats import About, Format
from timesformer.inference.predictor import Predictor
from timesformer.utils.errors import UserError, WeightsError
from timesformer.utils.files import (
    expand_home,
    make_folder,
    remove,
    stored_size,
    sweep,
    temporary_of,
)
from timesformer.utils.text import counted

BATCHES = (1, 2)
"""Clips on which a new file is held against the model: it has to be used soon."""
UNUSED = 30
_OURS = re.compile(r".*/[0-9a-f]{20}-\d+x\d+/[a-z]+-[0-9a-f]{20}")
Tell = Callable[[str], None]


def cache_folder() -> Path:
    """Return where files of backends are kept, whether it is there or not.

    Raises:
        UserError: no home folder is known, e.g. of a container's user without a name.
    """
    base = os.environ.get("TIMESFORMER_CACHE")
    if not base:
        base = str(Path(os.environ.get("XDG_CACHE_HOME") or expand_home("~/.cache"), "timesformer"))
    folder = expand_home(base)
    if folder.startswith("~"):
        raise UserError(
            f"{base}: no such home folder is known: let TIMESFORMER_CACHE name a folder in which "
            "files of backends are kept, or take --backend torch"
        )
    return Path(folder).absolute() / "backends"


def folder_of(about: About) -> Path:
    """Return the folder of a model: of its weights, and of what else is within its graph."""
    frames, side = about.shape[1:3]
    said = about.preprocessing
    graph = [about.weights_sha256, about.architecture, about.shape, about.num_classes]
    graph += [said.mean, said.std, said.channel_order, about.version]
    return cache_folder() / f"{digest(graph)}-{frames}x{side}"


def place_of(about: About, kind: Format) -> Path:
    """Return where the file of a model and a backend is, or will be."""
    name = f"{kind.name}-{digest(kind.versions())}"
    return folder_of(about) / name / f"model{kind.suffix}"


def digest(said: Any) -> str:
    """Return a name for what JSON can say."""
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:20]


def of_backend(model: Predictor, about: About, name: str, source: str, tell: Tell) -> Predictor:
    """Return a model that a backend computes; its file is made if it isn't there.

    Args:
        model: on the CPU, in full precision.
        about: what `about_of` says of it.
        name: one of KINDS.
        source: name of the weights, for messages.
        tell: gets lines for people.

    Raises:
        UserError: the backend computes something else than the model, or can't express it; or the
            file can't be written.
        ModuleNotFoundError: its packages aren't installed.
    """
    kind = KINDS[name]
    path = place_of(about, kind)
    if os.path.lexists(path.parent):  # whole, or what somebody left of it
        with suppress(OSError):  # of a cache that can be read alone
            os.utime(path.parent)
        try:
            return _predictor(open_exported(path, kind), about, model, name)
        except WeightsError as error:
            tell(f"{error}; it is made again")
            with _written(path.parent):
                remove(path.parent)
    kind.require(False)
    tell(f"backend {name}: made of {source} once, which may take minutes; kept in {path.parent}")
    _make(model, path, kind, source)
    _prune(tell)
    return _predictor(open_exported(path, kind), about, model, name)


def _predictor(found: ExportedModel, about: About, model: Predictor, name: str) -> Predictor:
    """Return the file's model, which makes clips and tests as the weights now say."""
    if found.about.weights_sha256 != about.weights_sha256 or found.about.shape != about.shape:
        raise WeightsError(f"{found.path}: is of other weights or clips")
    found.preprocessing, found.class_names = about.preprocessing.to_json(), about.class_names
    predictor = Predictor(found, model.testing)
    predictor.backend = name
    return predictor


def _make(model: Predictor, path: Path, kind: Format, source: str) -> None:
    """Write the folder of a file whole; what another process has made meanwhile is as good."""
    folder = path.parent
    make_folder(folder.parent).chmod(0o700)
    sweep(folder.parent)
    aside = temporary_of(folder)
    try:
        with _written(folder):
            aside.mkdir()
            with checked(model, aside / path.name, kind, source=source, batches=BATCHES):
                pass
            try:
                aside.rename(folder)
            except OSError:
                if not path.exists():
                    raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _prune(tell: Tell) -> None:
    """Delete files that nobody used for UNUSED days, of any model, and say so.

    What another process has just begun to read, it makes again.
    """
    now, freed = time.time(), list[int]()
    for folder in cache_folder().glob("*/*"):
        if not _OURS.fullmatch(folder.as_posix()):
            continue
        with suppress(OSError):  # another process deletes it, or it is another user's
            if now - folder.stat().st_mtime > UNUSED * 86_400:
                size = stored_size(folder)
                remove(folder)
                freed.append(size)
    if freed:
        tell(
            f"deleted {counted(len(freed), 'file')} of backends that nobody used for {UNUSED} days "
            f"from {cache_folder()}: {sum(freed) / 1e6:,.0f} MB"
        )


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    """Raise a UserError that says what to do, where the folder of a file can't be changed."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder}: can't be written ({error.strerror or error}): let TIMESFORMER_CACHE name "
            "another folder, or take --backend torch"
        ) from error
