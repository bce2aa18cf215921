"""Exported files at work: models of which nothing is left but what goes in and what comes out.

    timesformer.load("model.onnx").predict("video.mp4").top

Letters: B clips, T frames, H×W pixels, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from timesformer.clips.transform import Normalize
from timesformer.inference.formats import About, Format, Run, format_of
from timesformer.inference.formats.base import imported
from timesformer.models.base import TakesClips
from timesformer.utils.errors import UserError, WeightsError
from timesformer.utils.files import require_regular
from timesformer.utils.text import counted


@dataclass(frozen=True)
class Unnormalised(Normalize):
    """Makes of pixels what a file takes that normalises them itself.

    Attributes:
        whole: it takes uint8: pixels are rounded.
    """

    whole: bool = False

    def __call__(self, clips: Tensor) -> Tensor:
        """Return the pixels, float or uint8."""
        return clips.round().clamp(0, 255).to(torch.uint8) if self.whole else clips.float()


def for_input(about: About, normalize: Normalize) -> Normalize:
    """Return what makes of pixels what a file takes, of what makes what its model takes."""
    if about.input == "normalised":
        return normalize
    return Unnormalised(normalize.mean, normalize.std, normalize.bgr, about.input == "uint8")


class ExportedModel(TakesClips):
    """A model in a file that another program computes, on the CPU.

    It has no `architecture`: its knobs can't be turned any more, not even the number of frames.

    Attributes:
        path: the file.
        about: what it says of itself.
    """

    def __init__(self, path: Path, about: About, run: Run) -> None:
        self.path, self.about, self._run = path, about, run
        self.preprocessing = about.preprocessing.to_json()
        self.class_names = about.class_names

    @property
    def normalize(self) -> Normalize:
        """What makes of pixels what the file takes: nothing is left to do if it takes pixels."""
        return for_input(self.about, super().normalize)

    def __call__(self, clips: Tensor) -> Tensor:
        """Clips (B, 3, T, H, W), as `transform` makes them -> logits (B, K), float32.

        Raises:
            ValueError: they are of another shape or type.
            UserError: what computes the file can't, e.g. for want of memory.
        """
        about = self.about
        if tuple(clips.shape[1:]) != about.shape or clips.dtype != about.dtype:
            raise ValueError(
                f"{self.path} takes clips (B, {', '.join(map(str, about.shape))}) of {about.dtype},"
                f" not {tuple(clips.shape)} of {clips.dtype}"
            )
        try:
            return self._run(clips.detach().cpu().contiguous())
        except Exception as error:  # each library has its own
            raise UserError(
                f"{self.path}: {counted(len(clips), 'clip')} can't be computed ({_said(error)})"
            ) from error


def is_exported(source: object) -> bool:
    """Tell whether a source of weights is an exported file, by its name."""
    return format_of(source) is not None


def open_exported(path: str | Path, kind: Format | None = None) -> ExportedModel:
    """Read a file that `timesformer export` wrote.

    Args:
        path: the file.
        kind: its format; None takes what its name says.

    Raises:
        WeightsError: it can't be read, or doesn't say how clips are made for it.
        UserError: what computes it can't be imported.
        ModuleNotFoundError: what computes it isn't installed.
    """
    path, kind = Path(path), kind or format_of(path)
    assert kind is not None, path
    try:
        require_regular(path)
    except OSError as error:
        raise WeightsError(f"{path}: can't read it ({error.strerror})") from error
    if kind.runtime in kind.packages:  # else it would be the file that can't be read
        imported(kind.runtime)
    try:
        text, run = kind.open(path)
    except (ModuleNotFoundError, UserError):
        raise
    except Exception as error:  # each library has its own
        raise WeightsError(
            f"{path}: {kind.runtime} can't read it (cut short, damaged, or of another version): "
            f"{_said(error)}"
        ) from error
    return ExportedModel(path, About.from_text(path, text), run)


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{lines[0]:.200}"
