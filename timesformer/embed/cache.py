"""Features that have been computed once, in a file: a row for each video and model.

The file is of one model: its weights, architecture, preprocessing and how files are read. In it a
video is known by its path, part, size and time, so another list, order or selection of videos takes
from it what is there, and what couldn't be read is tried again.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from timesformer.datasets.lists.records import Record, Records
from timesformer.datasets.video.reader import VideoReader
from timesformer.datasets.video_dataset import Problem
from timesformer.embed import BATCH
from timesformer.embed.features import Features, embed_videos
from timesformer.models.base import VideoModel
from timesformer.utils.files import open_regular
from timesformer.utils.logging import get_logger
from timesformer.utils.npz import NPZ_DAMAGE, write_npz
from timesformer.utils.tensors import digest_of

logger = get_logger(__name__)

FORMAT = 1  # goes up when the same model and video give other rows
CHUNK = 2_000  # new videos after which the file is written; more where it is large


class Row(NamedTuple):
    """What is kept of a video."""

    features: NDArray[np.float32]
    thumbnail: bytes
    damage: str


@dataclass
class FeatureCache:
    """Rows of one model by video.

    Attributes:
        path: the file.
        about: what the rows depend on beside the video, in words that messages use.
        rows: by `video_key`.
    """

    path: Path
    about: dict[str, Any]
    rows: dict[str, Row] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, about: dict[str, Any]) -> FeatureCache:
        """Read the file if it is about the same; log why where it is of no use."""
        cache = cls(path, json.loads(json.dumps(about)))
        try:
            with open_regular(path) as file, np.load(file, allow_pickle=False) as found:
                theirs = json.loads(str(found["about"]))
                changed = [name for name in cache.about if theirs.get(name) != cache.about[name]]
                why = f"other {', '.join(changed)}" if changed else ""
                if not why:
                    cache.rows = _rows(dict(found))
        except FileNotFoundError:
            return cache
        except (OSError, LookupError, *NPZ_DAMAGE) as error:
            why = f"the file is damaged, or not one of features ({error!s:.100})"
        if why:
            logger.warning("%s: not used, computed again: %s", path, why)
        return cache

    def save(self) -> None:
        """Write the file."""
        rows = list(self.rows.values())
        pictures = [row.thumbnail for row in rows]
        write_npz(
            self.path,
            about=json.dumps(self.about),
            ids=np.array([*self.rows]),
            features=np.stack([row.features for row in rows]),
            damage=np.array([row.damage for row in rows]),
            thumbnails=np.frombuffer(b"".join(pictures), np.uint8),
            thumbnail_ends=np.cumsum([len(picture) for picture in pictures]),
        )


def _rows(found: dict[str, NDArray[Any]]) -> dict[str, Row]:
    """Return the rows of a file; ValueError where its parts don't fit each other."""
    ids, ends, features = found["ids"], found["thumbnail_ends"], found["features"]
    pictures = np.split(found["thumbnails"], ends[:-1])
    if features.ndim != 2 or features.dtype != np.float32 or not np.isfinite(features).all():
        raise ValueError("its features are none")
    parts = zip(ids, features, pictures, found["damage"], strict=True)
    return {str(i): Row(row, picture.tobytes(), str(why)) for i, row, picture, why in parts}


def about_model(model: VideoModel, reader: VideoReader) -> dict[str, Any]:
    """Return what features depend on beside the video."""
    built = model.architecture
    return {
        "format": FORMAT,
        "weights": digest_of(model.state_dict()),
        "architecture": built.to_json() if built else type(model).__name__,
        "preprocessing": model.preprocessing,
        "reader": {"frames_fps": reader.frames_fps},
    }


def video_key(record: Record) -> str:
    """Return what stands for a video: its file, as it is now, and the part that is meant."""
    try:
        found = os.stat(record.path)  # noqa: PTH116  (Path's is slower, and there are many)
        file: Any = (found.st_size, found.st_mtime_ns)
    except (OSError, ValueError):
        file = None
    path = os.path.abspath(record.path) if "\0" not in record.path else record.path  # noqa: PTH100
    said = json.dumps([path, file, record.start, record.end, record.images])
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def cached_features(
    model: VideoModel,
    records: Records,
    path: Path,
    *,
    reader: VideoReader | None = None,
    batch_size: int = BATCH,
    workers: int = 0,
) -> tuple[Features, int]:
    """Return the features of videos, and how many were in the file already.

    What is computed is added to the file while it is: an interrupt loses some thousand videos.

    Args:
        model: see `embed_videos`, as for all others.
        records: the videos.
        path: the file; it may not be there yet.
        reader: reads files.
        batch_size: videos that the model gets at once.
        workers: processes that decode.

    Raises:
        BlindModelError, UserError: as `embed_videos`.
    """
    reader = reader or VideoReader()
    cache = FeatureCache.open(path, about_model(model, reader))
    ids = [video_key(record) for record in records]
    missing = [i for i, name in enumerate(ids) if name not in cache.rows]
    failed: list[Problem] = []
    done = 0
    while chunk := missing[done : done + max(CHUNK, len(cache.rows) // 2)]:
        done += len(chunk)
        found = embed_videos(
            model, records.take(chunk), reader=reader, batch_size=batch_size, workers=workers
        )
        parts = zip(found.index, found.features, found.thumbnails, found.damage, strict=True)
        cache.rows |= {ids[chunk[i]]: Row(*row) for i, *row in parts}
        failed += [problem._replace(record=chunk[problem.record]) for problem in found.failed]
        if len(found.index):
            cache.save()
    index = [i for i, name in enumerate(ids) if name in cache.rows]
    rows = [cache.rows[ids[i]] for i in index]
    features = Features(
        features=np.stack([row.features for row in rows]) if rows else np.empty((0, 0), np.float32),
        index=np.array(index, np.int64),
        thumbnails=[row.thumbnail for row in rows],
        damage=[row.damage for row in rows],
        failed=failed,
    )
    return features, len(records) - len(missing)


def cache_file(folder: Path, source: str) -> Path:
    """Name the file of weights by where they come from."""
    place = os.path.abspath(source) if os.path.exists(source) else source  # noqa: PTH100, PTH110
    digest = hashlib.sha256(os.fsencode(place)).hexdigest()[:8]
    plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in Path(place).name)[:60]
    return folder / f"{plain}-{digest}.npz"
