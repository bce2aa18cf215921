"""Small videos with known pixels, for tests: `from video_fixtures import write_video`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def numbered_frames(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Make uint8 frames (count, height, width, 3) that all differ; every pixel of frame i is known.

    Red is i everywhere, green the row, blue the column (each modulo 256).
    """
    frames = np.empty((count, height, width, 3), np.uint8)
    frames[..., 0] = np.arange(count)[:, None, None] % 256
    frames[..., 1] = np.arange(height)[:, None] % 256
    frames[..., 2] = np.arange(width) % 256
    return frames


def write_video(
    path: Path,
    frames: np.ndarray,
    fps: int | Fraction = 30,
    first_pts: int = 0,
    times: Sequence[int] | None = None,
    options: Mapping[str, str] | None = None,
) -> Path:
    """Write uint8 frames (T, H, W, 3) losslessly as RGB H.264; returns `path`.

    Args:
        path: .mp4, .mkv or .h264 (raw: without timestamps).
        frames: the pixels a reader must find.
        fps: frames per second.
        first_pts: number of frame times before the first frame.
        times: when each frame is shown, in 1/fps seconds, for a variable rate.
        options: of the encoder, such as {"g": "8"}.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264rgb", rate=Fraction(fps), options={"qp": "0", **(options or {})}
        )
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = first_pts + (times[i] if times else i), 1 / Fraction(fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
