"""From uint8 frames to the normalised square clips that a model takes.

The order is the published one: normalise, resize the short side in float, crop, flip.
Shapes: T frames, H×W pixels, S spatial crops.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Normalize:
    """Uint8 RGB frames (T, H, W, 3) to a float clip (3, T, H, W).

    Attributes:
        mean: of each channel, for pixels in [0, 1], in the order the model sees the channels.
        std: likewise.
        bgr: the model takes BGR.
    """

    mean: Sequence[float]
    std: Sequence[float]
    bgr: bool = False

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        clip = frames.permute(3, 0, 1, 2)
        if self.bgr:
            clip = clip.flip(0)
        clip = clip.to(torch.float32, memory_format=torch.contiguous_format)
        mean, std = (torch.tensor(x).view(3, 1, 1, 1) for x in (self.mean, self.std))
        return clip.div_(255).sub_(mean).div_(std)


@dataclass(frozen=True)
class TrainTransform:
    """Random size, crop and flip of one clip.

    Attributes:
        normalize: pixels to numbers.
        jitter: least and greatest short side in pixels.
        crop_size: side of the square crop in pixels.
        inverse: draw the reciprocal of the short side uniformly instead of the short side.
        flip: mirror left and right with probability 1/2.
    """

    normalize: Normalize
    jitter: tuple[int, int]
    crop_size: int
    inverse: bool = False
    flip: bool = True

    def __call__(self, frames: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Map frames (T, H, W, 3) to a clip (3, T, crop_size, crop_size)."""
        short_side = draw_short_side(rng, self.jitter, self.inverse)
        clip = resize_short_side(self.normalize(frames), short_side)
        room_y, room_x = (side - self.crop_size for side in clip.shape[-2:])
        y, x = (int(rng.integers(0, room, endpoint=True)) for room in (room_y, room_x))
        clip = clip[..., y : y + self.crop_size, x : x + self.crop_size]
        mirrored = rng.random() < 0.5  # drawn in any case: the stream doesn't depend on the option
        return clip.flip(-1) if self.flip and mirrored else clip.contiguous()


@dataclass(frozen=True)
class EvalTransform:
    """The deterministic crops of one clip.

    Attributes:
        normalize: pixels to numbers.
        short_side: pixels after resizing.
        crop_size: side of the square crop in pixels.
        num_crops: 1 (the centre) or 3 along the longer side.
    """

    normalize: Normalize
    short_side: int
    crop_size: int
    num_crops: int

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Map frames (T, H, W, 3) to crops (S, 3, T, crop_size, crop_size)."""
        clip = resize_short_side(self.normalize(frames), self.short_side)
        places = [1] if self.num_crops == 1 else range(self.num_crops)
        crops = []
        for place in places:
            y, x = crop_corner(clip.shape[-2], clip.shape[-1], self.crop_size, place)
            crops.append(clip[..., y : y + self.crop_size, x : x + self.crop_size])
        return torch.stack(crops)


def draw_short_side(rng: np.random.Generator, jitter: tuple[int, int], inverse: bool) -> int:
    """Draw a short side in pixels from the range `jitter`, or uniformly in its reciprocal."""
    low, high = jitter
    if inverse:
        return round(1 / rng.uniform(1 / high, 1 / low))
    return round(rng.uniform(low, high))


def resize_short_side(clip: torch.Tensor, size: int) -> torch.Tensor:
    """Resize a float clip (3, T, H, W) so that its short side has `size` pixels.

    Bilinear without antialiasing, the long side rounded down, as the published models were trained.
    """
    height, width = clip.shape[-2:]
    if min(height, width) == size:
        return clip
    if width < height:
        shape = (math.floor(height / width * size), size)
    else:
        shape = (size, math.floor(width / height * size))
    return F.interpolate(clip, size=shape, mode="bilinear", align_corners=False)


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
