"""Videos that were extracted to a folder of image files, one a frame."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from timesformer.clips.frames import upright_rgb
from timesformer.datasets.lists.frame_rows import IMAGE_NUMBER, image_name
from timesformer.datasets.lists.records import Images
from timesformer.datasets.video.decode import Clips, Place
from timesformer.datasets.video.file import StreamInfo, check_size
from timesformer.datasets.video.index import FrameIndex
from timesformer.datasets.video.requests import Cut, Numbers, frame_numbers
from timesformer.datasets.video.shards import Member, MemberFolder
from timesformer.utils.errors import VideoError
from timesformer.utils.files import require_regular

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
TICKS = 1 << 16  # of the clock in a frame, fine as that of a video: clips start between frames


def list_frames(folder: str | MemberFolder, images: Images | None = None) -> list[str]:
    """Names of the image files of a folder in the order of their numbers (2 before 10).

    Args:
        folder: the frames.
        images: those that are meant; None for all.

    Raises:
        VideoError: it can't be read, has none, has images of several kinds or two of one number,
            not all that are meant, or it can't be told which are.
    """
    names = images_in(folder)
    if images is not None and images.name:
        return _named(folder, set(names), images)
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(re.sub(r"\d+", "#", name), []).append(name)
    if 1 < len(kinds) < len(names):  # names without numbers are all of their own kind
        most = sorted(kinds.items(), key=lambda kind: -len(kind[1]))
        shown = [kind if len(alike) > 1 else alike[0] for kind, alike in most]
        raise VideoError(
            folder,
            f"images of several kinds ({', '.join(shown[:3])}): frames of one video lie in a "
            "folder of their own, without optical flow, copies or thumbnails",
        )
    ordered = sorted((_by_number(name), name) for name in names)
    for (number, name), (same, other) in pairwise(ordered):
        if number == same:
            raise VideoError(folder, f"{name} and {other} have the same number")
    names = [name for _, name in ordered]
    return names if images is None else _counted(folder, names, images)


def images_in(folder: str | MemberFolder) -> list[str]:
    """Names of the image files of a folder, sorted as text.

    Raises:
        VideoError: it can't be read, or has none.
    """
    try:
        found = folder.names() if isinstance(folder, MemberFolder) else os.listdir(folder)  # noqa: PTH208
    except OSError as error:
        raise VideoError(folder, (error.strerror or str(error)).lower()) from error
    # Hidden files are no frames: macOS leaves "._00001.jpg" beside "00001.jpg".
    names = [n for n in found if n.lower().endswith(SUFFIXES) and not n.startswith(".")]
    if not names:
        raise VideoError(folder, f"a folder without frames ({', '.join(SUFFIXES)})")
    return sorted(names)


def _named(folder: str | MemberFolder, there: set[str], images: Images) -> list[str]:
    """Return the images of the names that a list has, whatever else lies beside them."""
    wanted = range(images.first, images.first + images.length)
    names = [image_name(images.name, number) for number in wanted]
    if absent := next((name for name in names if name not in there), None):
        raise VideoError(
            folder, f"{absent} isn't there, of {images.length} images that its list names"
        )
    return names


def _counted(folder: str | MemberFolder, names: Sequence[str], images: Images) -> list[str]:
    """Return the images that an offset and a number of frames mean.

    Some programs count the images of a folder, others go by the numbers in their names, from 1 or
    from 0. Where these would take other images, it would silently be another video.
    """
    stop = images.first + images.length
    if what := next(_unclear(names, stop), ""):
        raise VideoError(
            folder,
            f"{what}: a list with a number of frames needs images that are numbered from 1 without "
            "a gap; leave the number out, and all images count",
        )
    if stop > len(names):
        raise VideoError(folder, f"{len(names)} images, but its list says {stop}")
    return list(names[images.first : stop])


def _unclear(names: Sequence[str], stop: int) -> Iterator[str]:
    """Yield what keeps the first `stop` images from being the same by places and by numbers."""
    if (first := IMAGE_NUMBER.fullmatch(names[0])) is None:
        yield f"{names[0]} has no number"
        return
    if (start := int(first[2])) > 1:
        yield f"the first image is {names[0]}, not number 1"
    elif start == 0 and stop < len(names):
        yield f"{names[0]} may be the first image that counts, or the one after it"
    for number, name in enumerate(names[:stop], start):
        match = IMAGE_NUMBER.fullmatch(name)
        if not match or match.group(1, 3) != first.group(1, 3):
            yield f"{name} isn't named as {names[0]} but for its number"
        elif int(match[2]) != number:
            yield f"image {number} isn't there, before {name}"


def load_clips(
    folder: str | MemberFolder,
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
        image = read_image(image_of(folder, names[number]))
        if shape not in ((), image.shape):
            raise VideoError(folder, "its frames differ in size")
        shape = image.shape
        for request in requests:
            request.take(image, request.wants(number, 0) if request.missing else 0)
    return Clips([torch.stack(request.images) for request in requests])


def image_of(folder: str | MemberFolder, name: str) -> Path | Member:
    """Return where an image of a folder is."""
    return folder / name if isinstance(folder, MemberFolder) else Path(folder) / name


def read_image(path: Path | Member) -> np.ndarray:
    """Read a picture of one of the formats that SUFFIXES stand for: uint8 RGB (H, W, 3), upright.

    As `upright_rgb` does it; of several pictures in a file the first is taken.

    Raises:
        VideoError: it can't be read.
    """
    try:
        source: Path | BytesIO
        if isinstance(path, Member):
            source = BytesIO(path.read())
        else:
            require_regular(source := path)
        # PIL would try all formats that it knows, by content: an EPS would start Ghostscript.
        with Image.open(source, formats=FORMATS) as opened:
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
