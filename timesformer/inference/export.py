"""From a model to a file that runs without this package, held against the model before it is there.

Letters: B clips, T frames, H×W pixels, K classes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from timesformer import __version__
from timesformer.clips.preprocessing import Preprocessing
from timesformer.clips.sampling import RateSampler, sampler_of
from timesformer.clips.transform import Normalize
from timesformer.datasets.lists.records import Records
from timesformer.datasets.loader import evaluation_loader
from timesformer.inference.exported import ExportedModel, for_input, open_exported
from timesformer.inference.formats import FORMATS, About, Format
from timesformer.inference.given import GivenVideos
from timesformer.inference.measure import (
    BATCHES,
    Agreement,
    Speed,
    agreement,
    differences,
    speed,
)
from timesformer.inference.predictor import Predictor
from timesformer.inference.traced import Graph, traced, written
from timesformer.models.base import TakesClips, VideoModel
from timesformer.utils.errors import UserError
from timesformer.utils.files import require_place, sweep, temporary_of
from timesformer.utils.logging import progress
from timesformer.utils.tensors import digest_of

LIMIT = 1e-4  # largest difference of a logit, in full precision
HALF_LIMIT = 2e-2  # in half precision, of the largest logit
MOST_CALIBRATING = 300  # videos, what NNCF takes by itself
_STAGED = ".exported"  # ends the name of a folder that is being written, for `sweep`


@dataclass(frozen=True)
class Exported:
    """What came of an export.

    Attributes:
        path: the file.
        about: what it says of itself.
        runtime: what computes it.
        size: bytes, of all its files.
        differences: largest difference of a logit from PyTorch's, by the number of clips.
        speed: beside PyTorch's.
        agreement: on videos, or None.
    """

    path: Path
    about: About
    runtime: str
    size: int
    differences: dict[int, float]
    speed: Speed
    agreement: Agreement | None


def export(
    model: Predictor,
    path: str | Path,
    to: str,
    *,
    input: str = "pixels",
    precision: str = "fp32",
    source: str = "",
    calibrate: Records | None = None,
    compare: Records | None = None,
) -> Exported:
    """Write a model to a file, unless the file computes something else.

    Args:
        model: as `load` gives it.
        path: the file; it is replaced if it is there.
        to: onnx, torch-export or openvino.
        input: pixels, uint8 or normalised: see `formats.base.INPUTS`.
        precision: fp32, fp16 or int8.
        source: name of the weights, for the file to say.
        calibrate: videos like those to come, for int8 of formats that calibrate.
        compare: videos on which the file's answers are held against the model's.

    Raises:
        UserError: the format can't express the model or its precision; the file doesn't compute
            what the model does (in int8: on noise, that is no error); or it can't be written.
        ModuleNotFoundError: the format's packages aren't installed.
    """
    path, kind = Path(path), FORMATS[to]
    check_asked(kind, path, precision, calibrate)
    with checked(
        model, path, kind, input=input, precision=precision, source=source, calibrate=calibrate
    ) as (graph, found, apart):
        about, batches = found.about, {batch: largest for batch, (largest, _) in apart.items()}
        answers = agreement(model, Predictor(found, model.testing), compare) if compare else None
        timing = speed(graph, found, about)
        size = sum(file.stat().st_size for file in found.path.parent.iterdir())
    return Exported(path, about, kind.runtime, size, batches, timing, answers)


@contextmanager
def checked(
    model: Predictor,
    path: Path,
    kind: Format,
    *,
    input: str = "pixels",
    precision: str = "fp32",
    source: str = "",
    calibrate: Records | None = None,
    batches: Sequence[int] = BATCHES,
) -> Iterator[tuple[Graph, ExportedModel, dict[int, tuple[float, float]]]]:
    """Write a model aside, hold it against the model, and move it to its place at the end.

    Args:
        model: as `load` gives it; it goes to the CPU.
        path: the file.
        kind: its format.
        input: as `export` takes it, and so are the next three.
        precision: fp32, fp16 or int8.
        source: name of the weights.
        calibrate: videos, for int8.
        batches: numbers of clips on which it is compared.

    Yields:
        What it was made of, the file aside, and `differences` of both.

    Raises:
        UserError, ModuleNotFoundError: as `export`.
    """
    inner = model.model
    if not isinstance(inner, VideoModel):
        raise UserError(f"{source or 'the model'}: is exported already: name what it was made of")
    kind.require(precision == "int8")
    inner = inner.cpu().eval()
    about = about_of(inner, input, precision, source)
    graph = Graph(inner, _inside(inner, input))
    program = traced(graph, kind, about)
    clips = _calibrating(model, about, calibrate) if calibrate is not None else []
    with _staged(path) as place:
        try:
            written(kind, program, place, about, clips)
        except OSError as error:
            raise UserError(f"{path}: can't write this file: {error.strerror or error}") from error
        del program
        found = open_exported(place, kind)
        apart = differences(graph, found, about, batches)
        _check(kind, about, apart)
        yield graph, found, apart


def check_asked(kind: Format, path: Path, precision: str, calibrate: object) -> None:
    """Make sure that a format can be had so.

    Raises:
        UserError: the name of the file doesn't fit, or the precision, or videos are for another.
    """
    if path.suffix != kind.suffix:
        raise UserError(f"{path}: a file of {kind.name} must end in {kind.suffix}")
    if precision == "int8" and kind.for_int8 is None:
        able = " or ".join(f.name for f in FORMATS.values() if f.for_int8 is not None)
        raise UserError(f"--int8: {kind.name} can't hold it: take --to {able}")
    if calibrate is not None and not (precision == "int8" and kind.calibrates):
        able = " or ".join(f.name for f in FORMATS.values() if f.calibrates)
        raise UserError(f"--calibrate: is for --int8 with {able}: leave it out")


def _inside(model: TakesClips, input: str) -> Normalize | None:
    return None if input == "normalised" else model.normalize


def about_of(model: VideoModel, input: str, precision: str, source: str) -> About:
    """Gather what a file says of itself.

    Raises:
        UserError: the model has no classes.
    """
    built = model.architecture
    classes = built.num_classes if built else len(model.class_names)
    if not classes:
        raise UserError(f"{source or 'the model'}: has no classes, and scores are exported")
    sampling, crops = model.sampling, model.crops()
    said = replace(
        Preprocessing.from_json(model.preprocessing),
        num_frames=sampling["num_frames"],
        crop_size=crops.crop_size,
        short_side=crops.short_side,
        **model.testing._asdict(),
    )
    sampler = sampler_of(**sampling)
    if isinstance(sampler, RateSampler):
        said = replace(
            said,
            sampling="rate",
            target_fps=sampler.target_fps,
            clip_sampling=sampler.placement,
        )
    architecture: dict[str, Any] = built.to_json() if built else {}
    return About(
        input,
        precision,
        said,
        classes,
        tuple(model.class_names),
        source,
        digest_of(model.state_dict()),
        architecture,
        __version__,
    )


def _check(kind: Format, about: About, apart: dict[int, tuple[float, float]]) -> None:
    """Refuse a file that computes something else than the model.

    Raises:
        UserError: differences are too large, or scores not finite.
    """
    for batch, (largest, logit) in apart.items():
        limit = {"fp32": LIMIT, "fp16": HALF_LIMIT * logit}.get(about.precision, float("inf"))
        if largest > limit or largest == float("inf"):
            raise UserError(
                f"{kind.runtime} computes something else than PyTorch: logits of {batch} clips of "
                f"noise are up to {largest:.2g} apart, and {limit:.2g} is allowed in "
                f"{about.precision}; nothing is written"
            )


def _calibrating(model: Predictor, about: About, videos: Records) -> list[Tensor]:
    """Return a clip of each of the first videos, as the file takes it: (1, 3, T, H, W).

    Raises:
        UserError: none can be read.
    """
    first = Records()
    for record in list(videos)[:MOST_CALIBRATING]:
        first.append(record.path, record.label)
    one = model.testing._replace(num_clips=1, num_crops=1)
    loader = evaluation_loader(GivenVideos(model.model, one, first), 1, 0)
    ready = for_input(about, model.model.normalize)
    found = progress(loader, "calibrate", len(first))
    clips = [ready(pixels) for pixels, *_ in found if len(pixels)]
    if not clips:
        raise UserError("--calibrate: none of the videos can be read")
    return clips


@contextmanager
def _staged(path: Path) -> Iterator[Path]:
    """Give a place for a file under its own name, from where it and those beside it are moved.

    An earlier file goes before its neighbours change: its name is always that of a whole model.

    Raises:
        UserError: a folder or a device is there.
    """
    require_place(path)
    path = path.absolute()
    sweep(path.parent, _STAGED)
    folder = temporary_of(path.parent / f"{path.name}{_STAGED}")
    folder.mkdir()
    try:
        yield folder / path.name
        beside = [file for file in folder.iterdir() if file.name != path.name]
        if beside:
            path.unlink(missing_ok=True)
        for file in (*beside, folder / path.name):
            file.replace(path.parent / file.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
