"""Videos of a folder and the folders in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from timesformer.datasets.lists.row_paths import VIDEO_SUFFIXES
from timesformer.datasets.video.frame_folder import SUFFIXES
from timesformer.utils.logging import get_logger

logger = get_logger(__name__)


def videos_below(folder: Path, output: Path | None = None, frames: bool = False) -> Iterator[str]:
    """Yield the paths of all videos below a folder, in order; hidden files are none.

    Links to folders are followed, unless they lead back to one that they are in. A folder that
    can't be looked into is told.

    Args:
        folder: where to look.
        output: a folder in it where results lie, which are none of them.
        frames: folders of images count too, as one video each, unless there are videos in them.
    """
    hidden = None if output is None else output.resolve()
    for place, folders, files in os.walk(folder, onerror=_tell, followlinks=True):
        there = Path(place)
        seen = (name for name in folders if name[0] != ".")
        folders[:] = sorted(name for name in seen if _is_new(there / name, folder, hidden))
        names = sorted(name for name in files if name[0] != ".")
        videos = [name for name in names if Path(name).suffix.lower() in VIDEO_SUFFIXES]
        yield from (str(there / name) for name in videos)
        if frames and not videos and any(n.lower().endswith(SUFFIXES) for n in names):
            yield place


def _is_new(folder: Path, top: Path, hidden: Path | None) -> bool:
    """Tell whether a folder is to be looked into: not `hidden`, and no link to one around it.

    The folders around it are those on the way from `top`, each of which may be a link, and what
    they lie in.
    """
    if not folder.is_symlink():
        return hidden is None or folder.resolve() != hidden
    try:
        leads_to = folder.resolve(strict=True)
    except (OSError, RuntimeError):  # to nowhere, or to itself
        return False
    way = (folder.parents[i].resolve() for i in range(len(folder.parts) - len(top.parts)))
    return leads_to != hidden and not any(place.is_relative_to(leads_to) for place in way)


def _tell(error: OSError) -> None:
    logger.warning("%s: can't be looked into: %s", error.filename, error.strerror)
