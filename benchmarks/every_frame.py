"""The usual code for loading videos: every frame becomes an RGB array, anew for every view."""

from __future__ import annotations

from typing import NamedTuple

import av
import numpy as np
import torch
import torch.nn.functional as F

from timesformer.clips.sampling import ClipPosition, RateSampler
from timesformer.clips.training import TrainTransform, draw_short_side
from timesformer.clips.transform import EvalTransform, Normalize, crop_corner, scaled_size
from timesformer.datasets.video.file import ANY_TAGS, complete_rate

# The Kinetics recipe: 8 frames, one in 32, 224 × 224.
SAMPLER = RateSampler(8, 32)
TRAIN = TrainTransform(jitter=(256, 320), crop_size=224)
EVAL = EvalTransform(short_side=224, crop_size=224, num_crops=3)
NORMALIZE = Normalize((0.45,) * 3, (0.225,) * 3)


class Decoded(NamedTuple):
    """Every frame of a video, and what its header says: the usual code's view of it."""

    frames: list[np.ndarray]
    pts: np.ndarray
    length: int
    fps: float
    first_pts: int
    ticks: float


def convert_every_frame(path: str, threads: int | None = None) -> Decoded:
    """Decode a file to its end, and turn every frame into an upright uint8 RGB array.

    Args:
        path: a video file.
        threads: of the decoder and the converter; None leaves them as PyAV has them.
    """
    frames, stamps = [], []
    with av.open(path, **ANY_TAGS) as container:
        stream = container.streams.video[0]
        if threads:
            stream.codec_context.thread_count = threads
        for frame in container.decode(video=0):
            image = frame.to_ndarray(format="rgb24", threads=threads)
            frames.append(np.rot90(image, round(frame.rotation / 90)))
            stamps.append(frame.pts)
        length, first = stream.frames or len(frames), stream.start_time or 0
        ticks = stream.duration / length if stream.frames and stream.duration else 0.0
        fps, tick = float(stream.average_rate or 0), float(stream.time_base or 0)
    if None in stamps:  # a raw stream
        return Decoded(frames, np.arange(len(frames)), length, fps, 0, 1.0)
    pts = np.array(stamps, np.int64)
    ticks = ticks or float(pts.max() - pts.min()) / max(len(pts) - 1, 1)
    fps, ticks = complete_rate(path, fps, ticks, tick)
    return Decoded(frames, pts, length, fps, first, ticks)


def pick(video: Decoded, position: ClipPosition) -> np.ndarray:
    """Pick a clip's frames (T, H, W, 3): those on show at its moments, or from its start on."""
    pts, last = video.pts, len(video.pts) - 1
    offsets = np.array(position.offsets)
    even = np.linspace(pts[0], pts[-1], len(pts))
    step = (pts[-1] - pts[0]) / max(last, 1)
    if (np.diff(pts) > 0).all() and np.abs(pts - even).max() > step:  # the frame rate varies
        moments = video.first_pts + (position.start + offsets) * video.ticks
        numbers = np.maximum(np.searchsorted(pts, moments, side="right") - 1, 0)
    else:
        reached = pts >= video.first_pts + int(position.start * video.ticks)
        start = int(reached.argmax()) if reached.any() else last
        end = video.first_pts + (position.start + position.span - 1) * video.ticks
        over = np.flatnonzero(pts[start:] > end)
        numbers = start + np.minimum(offsets, over[0] if len(over) else last)
    return np.stack([video.frames[min(int(number), last)] for number in numbers])


def to_floats(frames: np.ndarray, normalize: Normalize) -> torch.Tensor:
    """Do it the usual way: floats in [0, 1], normalised, (T, 3, H, W), and resized after that."""
    clip = torch.from_numpy(frames).float() / 255
    mean, std = (torch.tensor(x) for x in (normalize.mean, normalize.std))
    return ((clip - mean) / std).permute(0, 3, 1, 2)


def usual_train_clip(video: Decoded, rng: np.random.Generator) -> torch.Tensor:
    """Make the training clip (3, T, 224, 224) that ours makes with the same generator."""
    frames = pick(video, SAMPLER.place(video.length, video.fps, None, rng))
    clip = to_floats(frames, NORMALIZE)
    side = draw_short_side(rng, TRAIN.jitter, TRAIN.inverse)
    clip = _resize(clip, scaled_size(clip.shape[2], clip.shape[3], side))
    size = TRAIN.crop_size
    y, x = (int(rng.integers(0, length - size, endpoint=True)) for length in clip.shape[-2:])
    clip = clip[..., y : y + size, x : x + size].transpose(0, 1)
    return (clip.flip(-1) if rng.random() < 0.5 else clip).contiguous()


def usual_view(video: Decoded, clip: tuple[int, int], crop: int) -> torch.Tensor:
    """Make one view (3, T, 224, 224) of a test video."""
    frames = pick(video, SAMPLER.place(video.length, video.fps, clip))
    floats = to_floats(frames, NORMALIZE)
    floats = _resize(floats, scaled_size(floats.shape[2], floats.shape[3], EVAL.short_side))
    size = EVAL.crop_size
    y, x = crop_corner(floats.shape[2], floats.shape[3], size, crop)
    return floats[..., y : y + size, x : x + size].transpose(0, 1).contiguous()


def _resize(clip: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(clip, size=size, mode="bilinear", align_corners=False)
