"""Videos that were extracted to a folder of image files, one a frame."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from timesformer.datasets.video.decode import Clips, Place
from timesformer.datasets.video.file import StreamInfo, check_size
from timesformer.datasets.video.index import FrameIndex
from timesformer.datasets.video.requests import frame_numbers
from timesformer.utils.errors import VideoError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
TICKS = 1 << 16  # of the clock in a frame, fine as that of a video: clips start between frames


def list_frames(folder: str) -> list[str]:
    """Names of the image files of a folder in the order of their numbers (2 before 10).

    Raises:
        VideoError: it can't be read or has none.
    """
    try:
        found = os.listdir(folder)  # noqa: PTH208
    except OSError as error:
        raise VideoError(folder, (error.strerror or str(error)).lower()) from error
    # Hidden files are no frames: macOS leaves "._00001.jpg" beside "00001.jpg".
    names = [n for n in found if n.lower().endswith(SUFFIXES) and not n.startswith(".")]
    if not names:
        raise VideoError(folder, f"a folder without frames ({', '.join(SUFFIXES)})")
    return sorted(names, key=_by_number)


def load_clips(folder: str, place: Place, fps: float) -> Clips:
    """Read several clips of one folder of frames; as `decode.load_clips` does of a file.

    Args:
        folder: the frames.
        place: told the number of frames and frames per second, says where the clips lie.
        fps: rate at which the frames were extracted.

    Raises:
        VideoError: a frame can't be read, or their sizes differ.
    """
    names = list_frames(folder)
    index = FrameIndex(TICKS * np.arange(len(names)), np.arange(len(names)), seekable=True)
    info = StreamInfo(len(names), fps, 0, float(TICKS), len(names), index)
    clips = [frame_numbers(info, position) for position in place(len(names), fps)]
    images = _read_images(folder, names, sorted({number for clip in clips for number in clip}))
    return Clips([torch.from_numpy(np.stack([images[n] for n in clip])) for clip in clips])


def _read_images(folder: str, names: Sequence[str], numbers: list[int]) -> dict[int, np.ndarray]:
    images: dict[int, np.ndarray] = {}
    for number in numbers:
        path = Path(folder) / names[number]
        try:
            with Image.open(path) as image:
                check_size(str(path), *image.size)
                images[number] = np.asarray(image.convert("RGB"))
        except VideoError:
            raise
        except Exception as error:
            raise VideoError(str(path), f"not a readable image ({error})") from error
    if len({image.shape for image in images.values()}) > 1:
        raise VideoError(folder, "its frames differ in size")
    return images


def _by_number(name: str) -> list[int | str]:
    # Odd places hold the digits, so numbers are compared with numbers, text with text.
    return [int(x) if i % 2 else x for i, x in enumerate(re.split(r"(\d+)", name))]
