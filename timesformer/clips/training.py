"""What training does to the frames of a clip in the worker: random size, crop and flip.

Training clips stay uint8 until they are on the device (`augment.py`), a quarter of the bytes;
resizing rounds them by at most 1/255.

Shapes: T frames, H×W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms import RandomResizedCrop

from timesformer.clips.transform import resize, scaled_size


@dataclass(frozen=True)
class TrainTransform:
    """Random size, crop and flip of one clip, the same for all of its frames.

    Attributes:
        jitter: least and greatest short side in pixels.
        crop_size: side of the square crop in pixels.
        inverse: draw the reciprocal of the short side uniformly instead of the short side.
        flip: mirror left and right with probability 1/2.
        resized_crop: (share of the area, aspect ratio) to draw crops from instead of `jitter`, each
            (least, greatest), as Inception does.
    """

    jitter: tuple[int, int]
    crop_size: int
    inverse: bool = False
    flip: bool = True
    resized_crop: tuple[tuple[float, float], tuple[float, float]] | None = None

    def __call__(self, frames: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, bool]:
        """Map frames (T, H, W, 3) to a uint8 clip (3, T, crop_size, crop_size).

        Returns:
            The clip, and whether it is mirrored.
        """
        images = frames.permute(0, 3, 1, 2)
        if self.resized_crop:
            scale, ratio = self.resized_crop
            with seeded(int(rng.integers(2**63))):
                y, x, height, width = RandomResizedCrop.get_params(images, [*scale], [*ratio])
            size = (self.crop_size, self.crop_size)
            images = resize(images[..., y : y + height, x : x + width], size, torch.uint8)
        else:
            side = draw_short_side(rng, self.jitter, self.inverse)
            size = scaled_size(images.shape[-2], images.shape[-1], side)
            room_y, room_x = (length - self.crop_size for length in size)
            y, x = (int(rng.integers(0, room, endpoint=True)) for room in (room_y, room_x))
            images = resize(images, size, torch.uint8, crop=(y, x, self.crop_size))
        mirrored = rng.random() < 0.5 and self.flip  # drawn in any case: the stream is the same
        clip = images.transpose(0, 1)
        return (clip.flip(-1) if mirrored else clip).contiguous(), mirrored


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let torchvision, which draws from torch's global generator, draw from this seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def draw_short_side(rng: np.random.Generator, jitter: tuple[int, int], inverse: bool) -> int:
    """Draw a short side in pixels from the range `jitter`, or uniformly in its reciprocal."""
    low, high = jitter
    if inverse:
        return round(1 / rng.uniform(1 / high, 1 / low))
    return round(rng.uniform(low, high))
