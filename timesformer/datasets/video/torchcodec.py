"""Decoding with torchcodec, an optional extra (DATA.DECODING_BACKEND torchcodec).

It gets the frame numbers that PyAV would read, so both give the same frames. What it would read
differently goes to PyAV: files whose timestamps can't be trusted, which it would sort; odd sizes,
which it scales otherwise; and whatever it fails on. Damage that it doesn't fail on it conceals
without a word, so check files with `timesformer check-data --decode` first.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from importlib import metadata

import torch
from torch import Tensor

from timesformer.datasets.video import decode
from timesformer.datasets.video.byte_range import ByteRange
from timesformer.datasets.video.decode import Clips, Place
from timesformer.datasets.video.file import open_video, read_info, typed_errors
from timesformer.datasets.video.index import Deadline
from timesformer.datasets.video.requests import Cut, frame_numbers
from timesformer.datasets.video.shards import Member, VideoPath
from timesformer.utils.errors import ConfigError

LOWEST = (0, 12)  # earlier versions turn the frames of some files otherwise than PyAV
AT_ONCE = 1 << 26  # bytes of full frames that are decoded together


def check_torchcodec() -> None:
    """Make sure that torchcodec loads; it needs FFmpeg's shared libraries beside its wheel.

    Raises:
        ConfigError: it doesn't, with the cause, or is too old to give PyAV's frames.
    """
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        cause = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"DATA.DECODING_BACKEND torchcodec doesn't load here ({cause[0]}): "
            "install torchcodec and FFmpeg's libraries, or use pyav"
        ) from error
    found = metadata.version("torchcodec")
    if tuple(map(int, found.split(".")[:2])) < LOWEST:
        raise ConfigError(
            f"DATA.DECODING_BACKEND torchcodec: version {found} gives other frames than PyAV for "
            f"some files: install {LOWEST[0]}.{LOWEST[1]} or later (torch 2.11), or use pyav"
        )


def load_clips(path: VideoPath, place: Place, timeout: float, cuts: Sequence[Cut] = ()) -> Clips:
    """Read several clips of one video; as `decode.load_clips`.

    Raises:
        VideoError: the file can't be read.
    """
    from torchcodec.decoders import VideoDecoder

    with typed_errors(path), open_video(path) as (container, stream):
        info, _ = read_info(path, container, stream, Deadline(path, timeout))
        number, size = stream.index, (stream.codec_context.width, stream.codec_context.height)
    if info.index is None or info.index.counted or any(side % 2 for side in size):
        return decode.load_clips(path, place, timeout, cuts)
    positions = place(info.frames, info.fps)
    clips = [frame_numbers(info, position) for position in positions]
    wanted = sorted({frame for clip in clips for frame in clip})
    try:
        with path.open() if isinstance(path, Member) else nullcontext(path) as source:
            video = VideoDecoder(
                source, stream_index=number, dimension_order="NHWC", num_ffmpeg_threads=1
            )
            if len(video) != len(info.index.pts):
                raise RuntimeError("torchcodec counts other frames")
            kept: list[list[Tensor]] = [[] for _ in clips]
            at_once = max(1, AT_ONCE // (3 * size[0] * size[1]))
            for start in range(0, len(wanted), at_once):
                numbers = wanted[start : start + at_once]
                for number, frame in zip(numbers, video.get_frames_at(numbers).data, strict=True):
                    for i, clip in enumerate(clips):
                        if count := clip.count(number):
                            kept[i] += [cuts[i](frame) if cuts else frame] * count
            if isinstance(source, ByteRange) and source.failed is not None:
                raise RuntimeError("storage failed")  # which PyAV tells
    except (RuntimeError, IndexError, ValueError, OSError):
        return decode.load_clips(path, lambda *_: positions, timeout, cuts)
    return Clips([torch.stack(images) for images in kept])
