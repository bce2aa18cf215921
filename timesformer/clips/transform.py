"""From uint8 frames to the normalised square clips that a model takes.

Two halves. The worker's half cuts and resizes: `TrainTransform` and `EvalTransform` make clips of
pixel values 0..255. The device's half, for a whole batch, is in `augment.py`: it normalises, and
augments training clips. Training clips stay uint8 in between, a quarter of the bytes; resizing
rounds them by at most 1/255. Evaluation clips are resized in float, as the published code does.

Shapes: T frames, H×W pixels, S spatial crops.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.transforms import RandomResizedCrop


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


@dataclass(frozen=True)
class EvalTransform:
    """The deterministic crops of one clip.

    Attributes:
        short_side: pixels after resizing.
        crop_size: side of the square crop in pixels.
        num_crops: 1 (the centre) or 3 along the longer side.
    """

    short_side: int
    crop_size: int
    num_crops: int

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Map frames (T, H, W, 3) to float crops 0..255, (S, 3, T, crop_size, crop_size)."""
        size = scaled_size(frames.shape[1], frames.shape[2], self.short_side)
        images = resize(frames.permute(0, 3, 1, 2), size)
        places = [1] if self.num_crops == 1 else range(self.num_crops)
        crops = []
        for place in places:
            y, x = crop_corner(images.shape[-2], images.shape[-1], self.crop_size, place)
            crops.append(images[..., y : y + self.crop_size, x : x + self.crop_size])
        return torch.stack(crops).transpose(1, 2).contiguous()


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


def scaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Size that an image is resized to; the long side is rounded down, as published."""
    if width < height:
        return math.floor(height / width * short_side), short_side
    return short_side, math.floor(width / height * short_side)


def resize(
    images: torch.Tensor,
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    crop: tuple[int, int, int] | None = None,
) -> torch.Tensor:
    """Resize images (T, 3, H, W) to (height, width), and cut a square of them.

    Bilinear in float without antialiasing, as the published models were trained; torch can resize
    uint8 itself, but errs by a whole level. One image at a time, because all of a long clip in
    float takes gigabytes, and a single image stays in the cache.

    Args:
        images: uint8 or float.
        size: in pixels.
        dtype: float32, or uint8 for rounded values.
        crop: (y, x, side) of the square, None for all.
    """
    y, x, height, width = (*crop, crop[2]) if crop else (0, 0, *size)
    window = (..., slice(y, y + height), slice(x, x + width))
    if images.shape[-2:] == size:
        return images[window].to(dtype)
    resized = []
    for image in images.split(1):
        large = F.interpolate(image.float(), size=size, mode="bilinear", align_corners=False)
        cut = large[window]
        resized.append(cut if dtype.is_floating_point else cut.round().to(dtype))
    return torch.cat(resized)


def crop_corner(height: int, width: int, size: int, place: int) -> tuple[int, int]:
    """Top left corner (y, x) of crop 0, 1 or 2.

    The three are left, centre and right where width >= height, else top, centre and bottom.
    """
    if size > min(height, width):
        raise ValueError(f"a crop of {size} pixels doesn't fit into {height}x{width}")
    y, x = math.ceil((height - size) / 2), math.ceil((width - size) / 2)
    if place == 1:
        return y, x
    if width >= height:
        return y, 0 if place == 0 else width - size
    return 0 if place == 0 else height - size, x
