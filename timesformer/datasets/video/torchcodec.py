"""Decoding with torchcodec, an optional extra (DATA.DECODING_BACKEND torchcodec).

It gets the frame numbers that PyAV would read, so both give the same frames. What it would read
differently goes to PyAV: files whose timestamps can't be trusted, which it would sort; odd sizes,
which it scales otherwise; and whatever it fails on. Damage that it doesn't fail on it conceals
without a word, so check files with `timesformer check-data --decode` first.
"""

from __future__ import annotations

import numpy as np

from timesformer.datasets.video import decode
from timesformer.datasets.video.decode import Clips, Place
from timesformer.datasets.video.file import open_video, read_info, typed_errors
from timesformer.datasets.video.index import Deadline
from timesformer.datasets.video.requests import frame_numbers
from timesformer.utils.errors import ConfigError


def check_torchcodec() -> None:
    """Make sure that torchcodec loads; it needs FFmpeg's shared libraries beside its wheel.

    Raises:
        ConfigError: it doesn't, with the cause.
    """
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        cause = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"DATA.DECODING_BACKEND torchcodec doesn't load here ({cause[0]}): "
            "install torchcodec and FFmpeg's libraries, or use pyav"
        ) from error


def load_clips(path: str, place: Place, timeout: float) -> Clips:
    """Read several clips of one video; as `decode.load_clips`.

    Raises:
        VideoError: the file can't be read.
    """
    from torchcodec.decoders import VideoDecoder

    with typed_errors(path), open_video(path) as (container, stream):
        info, _ = read_info(path, container, stream, Deadline(path, timeout))
        number, size = stream.index, (stream.codec_context.width, stream.codec_context.height)
    if info.index is None or any(side % 2 for side in size):
        return decode.load_clips(path, place, timeout)
    positions = place(info.frames, info.fps)
    clips = [frame_numbers(info, position) for position in positions]
    wanted = sorted({frame for clip in clips for frame in clip})
    try:
        video = VideoDecoder(
            path, stream_index=number, dimension_order="NHWC", num_ffmpeg_threads=1
        )
        if len(video) != len(info.index.pts):
            raise RuntimeError("torchcodec counts other frames")
        frames = video.get_frames_at(wanted).data
    except (RuntimeError, IndexError, ValueError):
        return decode.load_clips(path, lambda *_: positions, timeout)
    return Clips([frames[np.searchsorted(wanted, clip)] for clip in clips])
