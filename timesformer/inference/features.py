"""Features of videos as files, and back: what each format has, and how it is read.

A folder has `manifest.json`, and `parts/` with the features of some neighbours in the list each:
`.npz` of arrays, or Parquet with a row a video. As .npy, the features of a video are a file of its
own in `features/`, and the parts have the rest.

Letters: V videos of a part, N rows of all of them, D features.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from timesformer.datasets.lists.row_paths import VIDEO_SUFFIXES
from timesformer.utils.errors import UserError
from timesformer.utils.files import open_regular, require_regular, written_whole
from timesformer.utils.npz import NPZ_DAMAGE, write_npz

FORMATS = ("npz", "parquet", "npy")
MANIFEST = "manifest.json"
PARTS, FEATURES = "parts", "features"


@dataclass(frozen=True)
class VideoFeatures:
    """What was made of one video.

    Attributes:
        index: its place in the list.
        path: its file or folder.
        features: (n, …), float32 or float16; n is 0 where it can't be read.
        times: seconds of each row (n,).
        damage: what is wrong with the file although it could be read, or "".
        error: why it couldn't be, or "".
    """

    index: int
    path: str
    features: NDArray[Any]
    times: NDArray[np.float64]
    damage: str = ""
    error: str = ""


class Found(NamedTuple):
    """Features that are read: of a video (D,), or (n, …) with the seconds of their rows (n,)."""

    path: str
    features: NDArray[Any]
    times: NDArray[np.float64] | None


def part_name(number: int, file_format: str) -> str:
    """Return the name of a part's file."""
    return f"part-{number:07d}.{'parquet' if file_format == 'parquet' else 'npz'}"


def video_id(path: str) -> str:
    """Return what a video is called in data sets: its name without the suffix of videos."""
    name = Path(path).name
    suffix = Path(name).suffix
    return name[: -len(suffix)] if suffix.lower() in VIDEO_SUFFIXES else name


def write_part(folder: Path, number: int, rows: Sequence[VideoFeatures], file_format: str) -> None:
    """Write a part; its file is there when all of it is.

    Raises:
        OSError: it can't be written.
    """
    place = folder / PARTS / part_name(number, file_format)
    if file_format == "parquet":
        import pyarrow.parquet

        table = table_of(rows)
        with written_whole(place, synced=True) as partial:
            pyarrow.parquet.write_table(table, partial)
        return
    arrays = _arrays(rows)
    if file_format == "npy":
        del arrays["features"]
        for row in rows:
            if not row.error:
                file = folder / FEATURES / f"{video_id(row.path)}.npy"
                with written_whole(file, synced=True) as partial, partial.open("wb") as opened:
                    np.save(opened, row.features)
        arrays["crc32"] = np.array([0 if row.error else crc32_of(row.features) for row in rows])
    write_npz(place, synced=True, **arrays)


def crc32_of(features: NDArray[Any]) -> int:
    """Return a sum of an array and its shape and type, which the parts of .npy files have."""
    return zlib.crc32(
        features.tobytes(), zlib.crc32(repr((features.shape, features.dtype)).encode())
    )


def _arrays(rows: Sequence[VideoFeatures]) -> dict[str, NDArray[Any]]:
    there = [row.features for row in rows if not row.error]
    return {
        "features": np.concatenate(there) if there else np.empty((0, 0), np.float32),
        "times": np.concatenate([row.times for row in rows]),
        "ends": np.cumsum([len(row.features) for row in rows]),
        "index": np.array([row.index for row in rows]),
        "paths": np.array([row.path for row in rows]),
        "damage": np.array([row.damage for row in rows]),
        "error": np.array([row.error for row in rows]),
    }


def table_of(rows: Sequence[VideoFeatures]) -> Any:
    """Return a table of pyarrow: index, path, features in a row, their shape, times, damage, error.

    Names that aren't text are told by escapes.
    """
    import pyarrow as pa

    half = any(row.features.dtype == np.float16 for row in rows)
    kind = pa.float16() if half else pa.float32()
    columns = {
        "index": (pa.int64(), [row.index for row in rows]),
        "path": (pa.string(), [_text(row.path) for row in rows]),
        "features": (pa.large_list(kind), [row.features.ravel() for row in rows]),
        "shape": (pa.list_(pa.int32()), [[*row.features.shape] for row in rows]),
        "times": (pa.list_(pa.float64()), [row.times for row in rows]),
        "damage": (pa.string(), [_text(row.damage) for row in rows]),
        "error": (pa.string(), [_text(row.error) for row in rows]),
    }
    return pa.table({name: pa.array(column, of) for name, (of, column) in columns.items()})


def _text(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def rows_of(table: Any) -> Iterator[VideoFeatures]:
    """Yield the rows of a table as `table_of` makes it."""
    for i, row in enumerate(table.select([c for c in table.column_names if c != "features"])
                            .to_pylist()):  # fmt: skip
        flat = table["features"][i].values.to_numpy(zero_copy_only=False)
        yield VideoFeatures(
            row["index"],
            row["path"],
            flat.reshape(row["shape"]),
            np.array(row["times"], np.float64),
            row["damage"],
            row["error"],
        )


def read_part(folder: Path, number: int, file_format: str) -> Iterator[VideoFeatures]:
    """Yield the videos of a part, read or not.

    Raises:
        UserError: its file is damaged, or isn't one.
    """
    place = folder / PARTS / part_name(number, file_format)
    if file_format == "parquet":
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.read_table(place)
        except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
            raise _damaged(place, error) from error
        yield from rows_of(table)
        return
    npy = file_format == "npy"
    try:
        with open_regular(place) as file, np.load(file, allow_pickle=False) as found:
            arrays = dict(found)
        starts = [0, *arrays["ends"].tolist()]
        columns = [arrays[name].tolist() for name in ("index", "paths", "damage", "error")]
        rows = [*zip(*columns, strict=True)]
        sums = dict(zip(columns[0], arrays["crc32"].tolist(), strict=True)) if npy else {}
        for (start, end), told in zip(pairwise(starts), rows, strict=True):
            index, path, damage, reason = told
            if npy and not reason:
                with open_regular(folder / FEATURES / f"{video_id(path)}.npy") as file:
                    features = np.load(file, allow_pickle=False)
                if crc32_of(features) != sums[index]:
                    raise ValueError(f"{video_id(path)}.npy has changed")
            else:
                features = arrays.get("features", np.empty((0, 0), np.float32))[start:end]
            times = arrays["times"][start:end]
            yield VideoFeatures(index, path, features, times, damage, reason)
    except (OSError, LookupError, *NPZ_DAMAGE) as error:
        raise _damaged(place, error) from error


def failures(
    folder: Path, number: int, file_format: str, places: range
) -> list[tuple[int, str, str]]:
    """Return index, path and reason of each video of a part that couldn't be read.

    Args:
        folder: where it is.
        number: of the part.
        file_format: of the folder.
        places: of the part's videos in the list.

    Raises:
        UserError: as `read_part`, or a file of features isn't there, or the part is of other
            videos; the features aren't looked at.
    """
    place = folder / PARTS / part_name(number, file_format)
    names = ["index", "path" if file_format == "parquet" else "paths", "error"]
    try:
        if file_format == "parquet":
            import pyarrow.parquet

            table = pyarrow.parquet.read_table(place, columns=names)
            columns = [table[name].to_pylist() for name in names]
        else:
            with open_regular(place) as file, np.load(file, allow_pickle=False) as found:
                columns = [found[name].tolist() for name in names]
        rows = [*zip(*columns, strict=True)]
        require_places(place, columns[0], places)
        if file_format == "npy":
            for _, path, error in rows:
                if not error:
                    require_regular(folder / FEATURES / f"{video_id(path)}.npy")
    except (OSError, LookupError, *NPZ_DAMAGE) as error:
        raise _damaged(place, error) from error
    return [row for row in rows if row[2]]


def require_places(place: Path, found: Sequence[int], places: range) -> None:
    """Make sure that a part has the videos that its name says.

    Raises:
        UserError: it has others.
    """
    if [*found] != [*places]:
        raise _damaged(place, "it is of other videos of the list than its name says")


def _damaged(place: Path, error: Exception | str) -> UserError:
    if isinstance(error, OSError) and error.filename:
        error = f"{Path(error.filename).name}: {error.strerror}"
    return UserError(f"{place}: damaged, or no features ({error!s:.100}): delete it, and extract "
                     "again what is missing")  # fmt: skip


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read what a folder's features are.

    Raises:
        UserError: there is no such file, or it isn't one.
    """
    place = folder / MANIFEST
    try:
        with open_regular(place) as file:
            found = json.loads(file.read())
        asked = found["asked"]
        _ = asked["file_format"], asked["level"], asked["stride"], found["format"]
        counts = asked["videos"], asked["videos_a_part"], found["threads"]
        if min(map(int, counts)) < 1 or not isinstance(found["versions"], dict):
            raise ValueError("its numbers can't be")
    except FileNotFoundError:
        raise UserError(f"{folder}: no features are in it: {MANIFEST} isn't there") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{place}: not what `timesformer extract` writes ({error!s:.100}), and without "
            "it nobody knows what the parts are of: choose another folder"
        ) from error
    return found


def number_of_parts(manifest: dict[str, Any]) -> int:
    """Return how many files the features of all videos make."""
    asked = manifest["asked"]
    return -(-asked["videos"] // asked["videos_a_part"])


def parts_there(folder: Path, file_format: str) -> set[str]:
    """Return the names of the parts that are there."""
    suffix = Path(part_name(0, file_format)).suffix
    names = [path.name for path in (folder / PARTS).iterdir()]
    return {name for name in names if name.startswith("part-") and name.endswith(suffix)}


def read(folder: str | Path, partial: bool = False) -> Iterator[Found]:
    """Yield (path, features, times) of each video that could be read, in the order of the list.

    Features are (D,), and times None, where a video has one row: of clips that aren't windows.
    `failed.csv` has the videos that couldn't be read.

    Args:
        folder: what `extract` has filled.
        partial: take what is there; else all must be.

    Raises:
        UserError: there are no features, parts are missing, or a file is damaged.
    """
    place = Path(folder)
    manifest = read_manifest(place)
    asked = manifest["asked"]
    there, parts = parts_there(place, asked["file_format"]), number_of_parts(manifest)
    numbers = [i for i in range(parts) if part_name(i, asked["file_format"]) in there]
    if len(numbers) < parts and not partial:
        raise UserError(
            f"{folder}: {parts - len(numbers)} of {parts} parts are missing: run "
            "`timesformer extract` again, or read it with partial=True"
        )
    single = asked["level"] == "clip" and asked["stride"] is None
    size, videos = asked["videos_a_part"], range(asked["videos"])
    for number in numbers:
        rows = [*read_part(place, number, asked["file_format"])]
        name = place / PARTS / part_name(number, asked["file_format"])
        require_places(name, [row.index for row in rows], videos[number * size :][:size])
        for row in rows:
            if row.error:
                continue
            yield Found(row.path, *((row.features[0], None) if single
                                    else (row.features, row.times)))  # fmt: skip
