"""A video with what a model says of it written into its pictures.

Shape letters: H×W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from timesformer.datasets.video.whole import Decoded
from timesformer.utils.errors import in_one_line
from timesformer.utils.files import written_whole
from timesformer.visualization.style import font_file

LEAST = 240  # pixels of the short side; smaller videos are enlarged, or nobody could read it
LINE = 0.075  # of the height: a line of text
CLOCK = 90_000  # ticks a second
RATE = 30  # frames/s that the file's header says; each frame has its own time


class Caption(NamedTuple):
    """What is written from one moment to another.

    Attributes:
        start: seconds.
        end: seconds.
        text: a line.
        share: how sure it is, 0 to 1: the length of a bar.
        colour: of the bar, "#rrggbb".
    """

    start: float
    end: float
    text: str
    share: float
    colour: str


def write_annotated(path: Path, frames: Iterable[Decoded], captions: Sequence[Caption]) -> None:
    """Write frames with captions as H.264, without sound; each frame stays as long as it did.

    Args:
        path: an .mp4.
        frames: of one size, in their order.
        captions: ascending by their start.

    Raises:
        OSError: it can't be written.
    """
    with written_whole(path) as partial, av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "20", "preset": "veryfast"}
        stream.codec_context.time_base = Fraction(1, CLOCK)
        last = -1
        for seconds, picture in _drawn(frames, captions):
            if last < 0:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            last = max(last + 1, round(seconds * CLOCK))
            frame.pts, frame.time_base = last, Fraction(1, CLOCK)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _drawn(
    frames: Iterable[Decoded], captions: Sequence[Caption]
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Yield the second of each frame, and its picture with what is written at that time."""
    begun, active = 0, list[Caption]()
    for frame in frames:
        while begun < len(captions) and captions[begun].start <= frame.seconds + 1e-6:
            active.append(captions[begun])
            begun += 1
        active = [caption for caption in active if caption.end > frame.seconds + 1e-6]
        yield frame.seconds, annotated(frame.image(), tuple(active))


def annotated(image: NDArray[np.uint8], captions: tuple[Caption, ...]) -> NDArray[np.uint8]:
    """Return a picture (H, W, 3), enlarged if it is small, with captions at its lower edge."""
    factor = max(1, -(-LEAST // min(image.shape[:2])))
    image = image.repeat(factor, axis=0).repeat(factor, axis=1)
    image = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2].copy()
    if captions:
        band = _band(captions, image.shape[1], image.shape[0])
        opaque = band[..., 3:].astype(np.float32) / 255
        below = image[-len(band) :]
        below[:] = (below * (1 - opaque) + band[..., :3] * opaque).round()
    return image


@lru_cache(maxsize=64)
def _band(captions: tuple[Caption, ...], width: int, height: int) -> NDArray[np.uint8]:
    """Draw lines of text on a dark band: RGBA (h, width, 4)."""
    line = max(16, round(height * LINE))
    captions = captions[-max(1, height // line - 1) :]
    tall = min(line * len(captions) + 4, height)
    band = Image.new("RGBA", (width, tall), (0, 0, 0, 150))
    draw = ImageDraw.Draw(band)
    for i, caption in enumerate(captions):
        text = in_one_line(caption.text)
        font = ImageFont.truetype(font_file(text), round(line * 0.66))
        top = 2 + i * line
        draw.rectangle((0, top + 2, round(width * caption.share), top + line - 3),
                       fill=(*_rgb(caption.colour), 200))  # fmt: skip
        draw.text((line * 0.4, top + line / 2), text, (255, 255, 255, 255),
                  font, anchor="lm", stroke_width=1, stroke_fill=(0, 0, 0, 255))  # fmt: skip
    return np.asarray(band)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
