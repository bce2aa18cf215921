"""What training does to the frames of a clip in the worker: random size, crop and flip.

Training clips stay uint8 until they are on the device (`augment.py`), a quarter of the bytes;
resizing rounds them by at most 1/255.

Shapes: T frames, H×W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch

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
        cut = TrainCut(self, rng)
        return cut.clip(torch.stack([cut(frame) for frame in frames])), cut.mirrored

    def of_side(self, side: int) -> TrainTransform:
        """Return what makes crops of another side that show as much of a picture."""
        low, high = (max(side, round(short * side / self.crop_size)) for short in self.jitter)
        return replace(self, jitter=(low, high), crop_size=side)


class TrainCut:
    """Cuts the frames of one clip as they come, all alike; what is random is drawn at the first.

    Args:
        transform: how.
        rng: of this clip.

    Attributes:
        mirrored: whether the clip is; known after the first frame.
    """

    def __init__(self, transform: TrainTransform, rng: np.random.Generator) -> None:
        self.transform = transform
        self.rng = rng
        self.mirrored = False
        self._place: tuple[int, int, int, int] | None = None  # y, x, height, width

    def __call__(self, frame: torch.Tensor) -> torch.Tensor:
        """Map a frame (H, W, 3) to uint8 (3, crop_size, crop_size), not mirrored yet."""
        how, image = self.transform, frame.permute(2, 0, 1)
        side = how.crop_size
        if self._place is None:
            self._place = self._draw(image)
        y, x, height, width = self._place
        if how.resized_crop:
            return resize(image[:, y : y + height, x : x + width], (side, side), torch.uint8)
        return resize(image, (height, width), torch.uint8, crop=(y, x, side))

    def _draw(self, image: torch.Tensor) -> tuple[int, int, int, int]:
        """Draw a part of the image; or the size it gets, and the corner of the square in that."""
        how, rng = self.transform, self.rng
        if how.resized_crop:
            from torchvision.transforms import RandomResizedCrop  # takes seconds, and few need it

            scale, ratio = how.resized_crop
            with seeded(int(rng.integers(2**63))):
                y, x, height, width = RandomResizedCrop.get_params(image, [*scale], [*ratio])
        else:
            short = draw_short_side(rng, how.jitter, how.inverse)
            height, width = scaled_size(image.shape[-2], image.shape[-1], short)
            rooms = (height - how.crop_size, width - how.crop_size)
            y, x = (int(rng.integers(0, room, endpoint=True)) for room in rooms)
        self.mirrored = rng.random() < 0.5 and how.flip  # drawn in any case: the stream is the same
        return y, x, height, width

    def clip(self, images: torch.Tensor) -> torch.Tensor:
        """Join what came of the frames, (T, 3, S, S), to a clip (3, T, S, S)."""
        clip = images.transpose(0, 1)
        return (clip.flip(-1) if self.mirrored else clip).contiguous()


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
