"""Videos of a folder and the folders in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from timesformer.datasets.lists.row_paths import VIDEO_SUFFIXES
from timesformer.datasets.video.frame_folder import SUFFIXES


def videos_below(folder: Path, output: Path | None = None, frames: bool = False) -> Iterator[str]:
    """Yield the paths of all videos below a folder, in order; hidden files are none.

    Args:
        folder: where to look.
        output: a folder in it where results lie, which are none of them.
        frames: folders of images count too, as one video each, unless there are videos in them.
    """
    hidden = None if output is None else output.resolve()
    for place, folders, files in os.walk(folder):
        there = Path(place)
        folders[:] = sorted(n for n in folders if n[0] != "." and (there / n).resolve() != hidden)
        names = sorted(name for name in files if name[0] != ".")
        videos = [name for name in names if Path(name).suffix.lower() in VIDEO_SUFFIXES]
        yield from (str(there / name) for name in videos)
        if frames and not videos and any(n.lower().endswith(SUFFIXES) for n in names):
            yield place
