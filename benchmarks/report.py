"""What the benchmarks share: finding videos, a line on the machine, and the peak of memory."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import av
import torch
import torchvision

from timesformer.datasets.lists.row_paths import VIDEO_SUFFIXES
from timesformer.utils.errors import UserError
from timesformer.utils.processor import processor_name


def find_videos(folder: Path) -> list[Path]:
    """Return the video files of a folder and those within, sorted.

    Raises:
        UserError: there is none.
    """
    paths = [p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file()]
    if not paths:
        raise UserError(f"--videos {folder}: no folder with videos")
    return sorted(paths)


def environment() -> str:
    """Describe versions and processor."""
    return (
        f"Python {platform.python_version()}, torch {torch.__version__}, torchvision "
        f"{torchvision.__version__}, PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}\n"
        f"{processor_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads used"
    )


def peak_memory() -> int:
    """Return the most bytes that this process had, on Linux.

    getrusage would give the parent's, if that is larger: it is inherited by fork.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
