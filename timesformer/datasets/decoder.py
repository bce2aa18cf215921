"""Decoding of video files: the public face of `timesformer.datasets.video.decode`."""

from timesformer.datasets.video.decode import (
    Clips,
    VideoInfo,
    decode_all,
    load_clip,
    load_clips,
    load_frames,
    probe,
)
from timesformer.utils.errors import VideoError

__all__ = [
    "Clips",
    "VideoError",
    "VideoInfo",
    "decode_all",
    "load_clip",
    "load_clips",
    "load_frames",
    "probe",
]
