"""A video file, read as a test reads it, and what mattered to a model in it.

Shape letters: T frames, H×W pixels, h×w patches of a frame, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from timesformer.clips.sampling import ClipPosition, sampler_of
from timesformer.clips.transform import to_pictures
from timesformer.datasets.video.reader import VideoReader
from timesformer.models.base import VideoModel
from timesformer.models.explain.faithfulness import Faithfulness, faithfulness

TIME_STEP = "temporal_attn"  # what schemes call the attention along time


@dataclass(frozen=True)
class ExplainedVideo:
    """One clip of a video, and what mattered in it.

    Attributes:
        path: the file.
        method: see `models.explain.relevance`.
        frames: what the model saw, RGB (T, H, W, 3).
        numbers: of these frames in the file, from 0, as if its rate were constant.
        maps: relevance (T, h, w), adding up to 1.
        label: the class that is explained.
        probabilities: of all classes (K,).
        faithfulness: how far to believe the maps.
        time_heads: weights of the last block's time step, (A, T, T) averaged over patches; None
            where the scheme has none.
        damage: what is wrong with the file although it could be read, or "".
    """

    path: Path
    method: str
    frames: NDArray[np.uint8]
    numbers: list[int]
    maps: NDArray[np.float32]
    label: int
    probabilities: NDArray[np.float32]
    faithfulness: Faithfulness
    time_heads: NDArray[np.float32] | None
    damage: str

    @property
    def importance(self) -> NDArray[np.float32]:
        """Share of each frame (T,)."""
        return self.maps.sum((1, 2))


def explain_video(
    model: VideoModel, path: Path, method: str = "rollout", label: int | None = None
) -> ExplainedVideo:
    """Explain the clip in the middle of a video.

    Args:
        model: knows its `preprocessing`. It is used on the device that it is on.
        path: a video file, or a folder of frames.
        method: see `models.explain.relevance`.
        label: the class to explain; the predicted one when None.

    Raises:
        VideoError: the file can't be read.
        ConfigError: nothing says how the model's input is made.
        UserError: the model's scores aren't finite.
        ValueError: the model has no attention that the method could read.
    """
    frames, numbers, damage = read_middle(path, model.sampling)
    device = next(model.parameters()).device
    pixels = model.crop(frames)
    clips = model.normalize(pixels).to(device)
    classes = None if label is None else torch.tensor([label], device=device)
    found = model.eval().explain(clips, method, classes)
    chosen, maps = int(found.classes[0]), found.maps[0].cpu()
    return ExplainedVideo(
        path=path,
        method=method,
        frames=to_pictures(pixels[0]),
        numbers=numbers,
        maps=maps.numpy(),
        label=chosen,
        probabilities=found.logits[0].softmax(0).cpu().numpy(),
        faithfulness=faithfulness(model, clips[0], maps, chosen),
        time_heads=_time_heads(model, clips),
        damage=damage,
    )


def read_middle(path: Path, sampling: dict[str, Any]) -> tuple[torch.Tensor, list[int], str]:
    """Read the clip in the middle of a video: frames (T, H, W, 3), their numbers, damage.

    Args:
        path: a video file, or a folder of frames.
        sampling: a model's `sampling`.
    """
    sampler = sampler_of(**sampling | {"clip_sampling": "center"})
    numbers: list[int] = []

    def place(length: int, fps: float) -> list[ClipPosition]:
        position = sampler.place(length, fps, (0, 1))
        numbers[:] = position.numbers(length)
        return [position]

    clips = VideoReader()(str(path), place)
    return clips.frames[0], numbers, clips.damage


@torch.no_grad()
def _time_heads(model: VideoModel, clips: torch.Tensor) -> NDArray[np.float32] | None:
    read: Callable[..., dict[str, torch.Tensor]] | None = getattr(model, "attention_maps", None)
    steps = [n for n, _ in model.named_modules() if n.endswith(TIME_STEP)]
    if read is None or not steps:
        return None
    # The last one alone: all weights of a long clip take gigabytes.
    [weights] = read(clips, [steps[-1].removeprefix("model.")]).values()
    return weights[0].mean(0).cpu().numpy()
