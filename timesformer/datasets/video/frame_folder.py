"""Videos that were extracted to a folder of image files, one a frame."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from timesformer.clips.frames import upright_rgb
from timesformer.datasets.lists.frame_rows import IMAGE_NUMBER
from timesformer.datasets.lists.records import Images
from timesformer.datasets.video.decode import Clips, Place
from timesformer.datasets.video.file import StreamInfo, check_size
from timesformer.datasets.video.index import FrameIndex
from timesformer.datasets.video.requests import Cut, Numbers, frame_numbers
from timesformer.utils.errors import VideoError
from timesformer.utils.files import require_regular

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
TICKS = 1 << 16  # of the clock in a frame, fine as that of a video: clips start between frames


def list_frames(folder: str, images: Images | None = None) -> list[str]:
    """Names of the image files of a folder in the order of their numbers (2 before 10).

    Args:
        folder: the frames.
        images: those that are meant; None for all.

    Raises:
        VideoError: it can't be read, has none, has those of several videos, or not all that are
            meant.
    """
    try:
        found = os.listdir(folder)  # noqa: PTH208
    except OSError as error:
        raise VideoError(folder, (error.strerror or str(error)).lower()) from error
    # Hidden files are no frames: macOS leaves "._00001.jpg" beside "00001.jpg".
    names = [n for n in found if n.lower().endswith(SUFFIXES) and not n.startswith(".")]
    if not names:
        raise VideoError(folder, f"a folder without frames ({', '.join(SUFFIXES)})")
    kinds = Counter(re.sub(r"\d+", "#", name) for name in names)
    if len(many := [kind for kind, count in kinds.most_common() if count > 1]) > 1:
        raise VideoError(
            folder,
            f"images of several kinds ({', '.join(many[:3])}): frames of one video lie in a folder "
            "of their own, without optical flow or copies",
        )
    names.sort(key=_by_number)
    return names if images is None else _chosen(folder, names, images)


def _chosen(folder: str, names: Sequence[str], images: Images) -> list[str]:
    """Return the names of these images; others would be silently another video."""
    wanted = range(images.first, images.first + images.length)
    if images.numbered:
        there = {int(m[2]): n for n in names if (m := IMAGE_NUMBER.fullmatch(n))}
        if absent := next((str(n) for n in wanted if n not in there), None):
            raise VideoError(
                folder, f"image {absent} isn't there, of {images.length} that its list names"
            )
        return [there[number] for number in wanted]
    if wanted.stop > len(names):
        raise VideoError(folder, f"{len(names)} images, but its list says {wanted.stop}")
    return list(names[wanted.start : wanted.stop])


def load_clips(
    folder: str,
    place: Place,
    fps: float,
    cuts: Sequence[Cut] = (),
    images: Images | None = None,
) -> Clips:
    """Read several clips of one folder of frames; as `decode.load_clips` does of a file.

    Args:
        folder: the frames.
        place: told the number of frames and frames per second, says where the clips lie.
        fps: rate at which the frames were extracted.
        cuts: see there.
        images: those that are meant; None for all.

    Raises:
        VideoError: a frame can't be read or isn't there, or their sizes differ.
    """
    names = list_frames(folder, images)
    index = FrameIndex(TICKS * np.arange(len(names)), np.arange(len(names)), seekable=True)
    info = StreamInfo(len(names), fps, 0, float(TICKS), len(names), index)
    requests = [Numbers(frame_numbers(info, position)) for position in place(len(names), fps)]
    for request, cut in zip(requests, cuts, strict=False):
        request.cut = cut
    shape: tuple[int, ...] = ()
    for number in sorted({number for request in requests for number in request.numbers}):
        image = read_image(Path(folder) / names[number])
        if shape not in ((), image.shape):
            raise VideoError(folder, "its frames differ in size")
        shape = image.shape
        for request in requests:
            request.take(image, request.wants(number, 0) if request.missing else 0)
    return Clips([torch.stack(request.images) for request in requests])


def read_image(path: Path) -> np.ndarray:
    """Read a picture of one of the formats that SUFFIXES stand for: uint8 RGB (H, W, 3), upright.

    As `upright_rgb` does it; of several pictures in a file the first is taken.

    Raises:
        VideoError: it can't be read.
    """
    try:
        require_regular(path)
        # PIL would try all formats that it knows, by content: an EPS would start Ghostscript.
        with Image.open(path, formats=FORMATS) as opened:
            check_size(str(path), *opened.size)
            return upright_rgb(opened)
    except VideoError:
        raise
    except OSError as error:
        raise VideoError.of_system(str(path), error, "not a readable image") from error
    except Exception as error:
        raise VideoError(str(path), f"not a readable image ({error})") from error


def _by_number(name: str) -> list[int | str]:
    # Odd places hold the digits, so numbers are compared with numbers, text with text.
    return [int(x) if i % 2 else x for i, x in enumerate(re.split(r"(\d+)", name))]
