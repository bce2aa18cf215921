"""From uint8 frames to the square clips that a model takes, the same each time.

Two steps, for evaluation and for whoever uses a model: `EvalTransform` resizes and cuts in float,
as the published code does, and `Normalize` makes numbers of the pixels, for a whole batch and on
the device. Training, which is random, is in `training.py` and `augment.py`.

Shapes: T frames, H×W pixels, S spatial crops.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


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
        return self.crops(torch.stack([self.frame(frame) for frame in frames]))

    def frame(self, frame: Tensor) -> Tensor:
        """Map a frame (H, W, 3) to the resized float image (3, h, w) that crops are cut from."""
        size = scaled_size(frame.shape[0], frame.shape[1], self.short_side)
        return resize(frame.permute(2, 0, 1), size)

    def crops(self, images: Tensor) -> Tensor:
        """Cut images (T, 3, h, w) that `frame` has made: (S, 3, T, crop_size, crop_size)."""
        places = [1] if self.num_crops == 1 else range(self.num_crops)
        crops = []
        for place in places:
            y, x = crop_corner(images.shape[-2], images.shape[-1], self.crop_size, place)
            crops.append(images[..., y : y + self.crop_size, x : x + self.crop_size])
        return torch.stack(crops).transpose(1, 2).contiguous()


@dataclass(frozen=True)
class Normalize:
    """Pixel values 0..255, uint8 or float, of clips (…, 3, T, H, W) to what a model takes.

    Attributes:
        mean: of each channel, for pixels in [0, 1], in the order the model sees the channels.
        std: likewise.
        bgr: the model takes BGR; clips come as RGB.
    """

    mean: Sequence[float]
    std: Sequence[float]
    bgr: bool = False

    def __call__(self, clips: Tensor) -> Tensor:
        """Return a new float tensor on the clips' device."""
        if self.bgr:
            clips = clips.flip(-4)
        clips = clips.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        mean, std = (
            torch.tensor(x).view(3, 1, 1, 1).to(clips.device, non_blocking=True)
            for x in (self.mean, self.std)
        )
        return clips.div_(255).sub_(mean).div_(std)


def scaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Size that an image is resized to; the long side is rounded down, as published."""
    if width < height:
        return math.floor(height / width * short_side), short_side
    return short_side, math.floor(width / height * short_side)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute as a worker process does, whatever the process: threads change the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def resize(
    image: torch.Tensor,
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    crop: tuple[int, int, int] | None = None,
) -> torch.Tensor:
    """Resize an image (3, H, W) to (height, width), and cut a square of it.

    Bilinear in float without antialiasing, as the published models were trained; torch can resize
    uint8 itself, but errs by a whole level. One image at a time, because all of a long clip in
    float takes gigabytes, and a single image stays in the cache.

    Args:
        image: uint8 or float.
        size: in pixels.
        dtype: float32, or uint8 for rounded values.
        crop: (y, x, side) of the square, None for all.
    """
    y, x, height, width = (*crop, crop[2]) if crop else (0, 0, *size)
    window = (..., slice(y, y + height), slice(x, x + width))
    if image.shape[-2:] == size:
        return image[window].to(dtype)
    pixels = image[None].float()
    with one_thread():
        large = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False)[0]
    cut = large[window]
    # A copy, or all of the large image would be kept for the square.
    return cut.clone() if dtype.is_floating_point else cut.round().to(dtype)


def to_pictures(pixels: Tensor) -> NDArray[np.uint8]:
    """Map pixels (3, …) of values 0..255, of an image or a clip, to what people look at (…, 3)."""
    return pixels.movedim(0, -1).round().clamp(0, 255).byte().numpy()


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
