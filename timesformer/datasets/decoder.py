"""Decoding of videos: the public face of `timesformer.datasets.video`."""

from timesformer.datasets.video.decode import (
    Clips,
    decode_all,
    load_clips,
    load_frames,
)
from timesformer.datasets.video.probe import VideoInfo, probe
from timesformer.datasets.video.reader import load_clip
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
