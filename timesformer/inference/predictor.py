"""A trained model to ask about videos, whatever computes it.

    model = timesformer.load("runs/a")
    model.predict("a.mp4").top

Shape letters: B clips, T frames, H×W pixels, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn

from timesformer.clips.frames import as_frames
from timesformer.clips.sampling import sampler_of
from timesformer.datasets.lists.records import Records
from timesformer.datasets.loader import evaluation_loader
from timesformer.datasets.video.reader import VideoReader
from timesformer.datasets.video_dataset import FAILED, USED, Problem
from timesformer.datasets.workers import worker_errors
from timesformer.inference.filling import filled
from timesformer.inference.given import SHORT, GivenVideos, ShortNotice, records_of
from timesformer.inference.prediction import TOPK, Prediction
from timesformer.models.base import TakesClips, Testing
from timesformer.utils.errors import ConfigError, UserError
from timesformer.utils.precision import AMP_TYPES, autocast

PathLike = str | os.PathLike[str]
BATCH = 8  # clips
TORCH = "torch"  # the backend that is none: the model as it is


class Predictor:
    """A model with the protocol of its test: videos in, predictions out.

    Attributes:
        model: maps clips (B, 3, T, H, W), as its `transform` makes them, to scores (B, K).
        testing: views of a video, and how their scores are joined.
        amp: precision of forward passes: none, bf16 or fp16.
        backend: what computes them, by its name in `inference.backends`.
    """

    backend = TORCH

    def __init__(self, model: Any, testing: Testing | None = None, amp: str = "none") -> None:
        """Take a model.

        Args:
            model: of the registry, or another that `TakesClips`; knows its `preprocessing`.
            testing: how a video is looked at; as the model was tested when None.
            amp: none, bf16 or fp16.

        Raises:
            ConfigError: nothing says how the model's input is made; or there is no such precision.
        """
        if not isinstance(model, TakesClips):
            raise ConfigError(
                f"a model of timesformer is needed, as load() gives it, not {type(model).__name__}"
            )
        if amp not in ("none", *AMP_TYPES):
            raise ConfigError(f"amp must be none, {' or '.join(AMP_TYPES)}, not {amp!r:.60}")
        self.model: Any = model
        self.testing = testing or model.testing
        self.amp = amp
        _ = model.sampling, model.normalize, model.crops()  # what is missing is told now

    @property
    def class_names(self) -> tuple[str, ...]:
        """In label order, or ()."""
        return self.model.class_names

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        if isinstance(self.model, nn.Module):
            return next(self.model.parameters()).device
        return torch.device("cpu")

    def with_views(self, views: str) -> Predictor:
        """Return the same with other views of a video: clips x crops, e.g. "4x3".

        Raises:
            UserError: it is something else, or crops aren't 1 or 3.
        """
        clips, crops = views_of(views)
        testing = self.testing._replace(num_clips=clips, num_crops=crops)
        other = Predictor(self.model, testing, self.amp)
        other.backend = self.backend
        return other

    def transform(self, frames: Any, num_crops: int = 1) -> Tensor:
        """Make of a clip's frames what the model takes: see `TakesClips.transform`."""
        return self.model.transform(frames, num_crops)

    @torch.no_grad()
    def score(self, pixels: Tensor) -> Tensor:
        """Score clips.

        Args:
            pixels: as `model.crop` cuts them, RGB 0..255, (B, 3, T, H, W), on any device.

        Returns:
            Scores (B, K), float32, on the CPU.

        Raises:
            UserError: they aren't finite.
        """
        with evaluating(self.model), autocast(self.device, self.amp):
            clips = self.model.normalize(pixels.to(self.device, non_blocking=True))
            scores: Tensor = self.model(clips).float().cpu()
        if not scores.isfinite().all():
            advice = f", or {self.amp} can't hold what they make" if self.amp != "none" else ""
            raise UserError(f"the model's scores aren't finite: its weights are no good{advice}")
        return scores

    @overload
    def predict(self, videos: PathLike, topk: int = ..., **options: Any) -> Prediction: ...

    @overload
    def predict(
        self, videos: list[str] | list[Path], topk: int = ..., **options: Any
    ) -> list[Prediction]: ...

    @overload
    def predict(self, videos: Any, topk: int = ..., fps: float | None = ...) -> Any: ...

    def predict(
        self, videos: Any, topk: int = TOPK, fps: float | None = None, **options: Any
    ) -> Prediction | list[Prediction]:
        """Say what is in a video, or in each of several.

        Args:
            videos: a path; a list of paths; or the frames of one video, RGB, not resized: uint8
                (N, H, W, 3), a tensor or an array, or a list of images of PIL.
            topk: classes that `Prediction.top` names.
            fps: frames per second of such frames, of which the test's clips are then chosen.
                Without it, N must be the T of a clip, unless the model takes frames of equal parts
                of a video.
            **options: batch_size, workers and reader of `stream`, for paths.

        Returns:
            One prediction, or a list of them. A file that can't be read is one with its `error`.

        Raises:
            ValueError: frames aren't what they should be; or fps is needed, and isn't there.
        """
        if isinstance(videos, str | os.PathLike):
            [found] = self.stream([videos], topk=topk, **options)
            return found
        if isinstance(videos, Sequence) and all(isinstance(v, str | os.PathLike) for v in videos):
            return [*self.stream(videos, topk=topk, **options)]
        if options:
            raise TypeError(f"{', '.join(options)}: for paths, not for frames")
        return self._of_frames(as_frames(videos), topk, fps)

    def stream(
        self,
        videos: Iterable[PathLike] | Records,
        *,
        topk: int = TOPK,
        batch_size: int = BATCH,
        workers: int = 0,
        reader: VideoReader | None = None,
    ) -> Iterator[Prediction]:
        """Predict videos, one after the other, as they come.

        Forward passes are full whatever the number of views, so that a video shares them with its
        neighbours; its scores depend on how many clips are in a pass only, and by rounding alone.

        Args:
            videos: paths, or records, whose labels play no part.
            topk: classes that `Prediction.top` names.
            batch_size: clips in a forward pass.
            workers: processes that decode; 0: this one.
            reader: reads files; by PyAV when None.

        Yields:
            Predictions in the order of the videos; one that can't be read has an `error`.

        Raises:
            UserError: there is no video; or scores aren't finite.
            TrainingError: a process that decodes has ended.
        """
        records = videos if isinstance(videos, Records) else records_of(videos)
        dataset = GivenVideos(self.model, self.testing, records, reader)
        loader = evaluation_loader(dataset, 1, workers)
        notice = ShortNotice()

        def read() -> Iterator[tuple[tuple[int, list[Problem]], Tensor]]:
            for i, (pixels, _, _, meta) in enumerate(loader):
                for problem in meta["problems"]:
                    if problem.treatment == SHORT:
                        notice(problem.path, problem.reason)
                yield (i, meta["problems"]), pixels

        with worker_errors(loader):
            for (i, problems), scores in filled(self.score, read(), batch_size):
                told = {problem.treatment: problem.reason for problem in problems}
                if SHORT in told:
                    told[SHORT] += f": {SHORT}"
                joined = None
                if FAILED not in told:
                    joined = self.testing.joined(scores)
                yield Prediction(
                    records[i].path,
                    joined,
                    self.testing,
                    self.class_names,
                    damage="; ".join(told[how] for how in (USED, SHORT) if how in told),
                    error=told.get(FAILED),
                    topk=topk,
                )

    def _of_frames(self, frames: Tensor, topk: int, fps: float | None) -> Prediction:
        """Predict a video that is there as frames (N, H, W, 3)."""
        sampling, told = self.model.sampling, self.testing
        if len(frames) == sampling["num_frames"] and fps is None:
            told, clips = told._replace(num_clips=1), [frames]
        elif fps is None and sampling["sampling_rate"] is not None:
            raise ValueError(
                f"{len(frames)} frames, and a clip has {sampling['num_frames']}: to choose them "
                "from a longer video, say its fps"
            )
        else:
            sampler, clips = sampler_of(**sampling), []
            for i in range(told.num_clips):
                at = sampler.place(len(frames), fps or 30.0, (i, told.num_clips))
                clips.append(frames[at.numbers(len(frames))])
        cut = self.model.crops(told.num_crops)
        scores = self.score(torch.cat([cut(clip) for clip in clips]))
        return Prediction("", told.joined(scores), told, self.class_names, topk=topk)


def predict(
    model: Any, videos: PathLike | Iterable[PathLike] | Records, **options: Any
) -> Iterator[Prediction]:
    """Predict videos as they come; see `Predictor.stream`.

    Args:
        model: a Predictor, or a model that knows its `preprocessing`.
        videos: one path, or several.
        **options: those of `Predictor.stream`.
    """
    predictor = model if isinstance(model, Predictor) else Predictor(model)
    several = [videos] if isinstance(videos, str | os.PathLike) else videos
    return predictor.stream(several, **options)


def views_of(word: str) -> tuple[int, int]:
    """Return the clips and crops that a word means, e.g. "4x3".

    Raises:
        UserError: it is something else, or crops aren't 1 or 3.
    """
    clips, _, crops = word.lower().partition("x")
    if not (clips.isdecimal() and int(clips) > 0 and crops in ("1", "3")):
        raise UserError(
            f"views {word!r:.60}: clips x crops, of which there are 1 or 3: 1x3, or 10x3"
        )
    return int(clips), int(crops)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Put a model into evaluation mode, and back into the one that it was in."""
    training = isinstance(model, nn.Module) and model.training
    if training:
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()
