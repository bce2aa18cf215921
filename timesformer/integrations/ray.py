"""Features of videos by Ray Data: processes that decode and processes with the model, scaled apart.

    ds = features_dataset(videos, "runs/a", Settings(), decoders=(1, 32), encoders=4, num_gpus=1)
    ds.write_parquet("features")

The rows are those of Parquet files of `timesformer.inference.extract`, bit for bit; their order is
Ray's: `index` is a video's place in the list, and `clip` the first window of a row where a video's
windows are many. Needs `pip install 'timesformer[ray]'`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from timesformer.datasets.video.reader import VideoReader
from timesformer.inference.encoder import Encoder, features_of
from timesformer.inference.features import VideoFeatures, table_of
from timesformer.inference.given import ShortNotice, records_of
from timesformer.inference.load import load
from timesformer.inference.passes import DecodedPass, Look, Piece, ReadPiece
from timesformer.inference.settings import Settings, look_of, stored
from timesformer.integrations.described import Described


class ClipDecoder:
    """Videos to clips: a class for `map_batches`, for processes without a GPU.

    Tables of a column `videos`, JSON as `_unit` makes it, become tables with a row a forward pass:
    what is in it, and the bytes of its pixels.
    """

    def __init__(self, described: Described, look: Look, reader: VideoReader | None = None) -> None:
        """Take what is known of the model, how videos are looked at, and what reads them."""
        self.described, self.look, self.reader = described, look, reader

    def __call__(self, units: Any) -> Iterator[Any]:
        """Decode a table of neighbours in the list."""
        import pyarrow as pa

        for text in units["videos"].to_pylist():
            unit = json.loads(text)
            records = records_of(unit["paths"])
            dataset = self.look.dataset(self.described, records, self.reader)
            videos = range(len(unit["paths"]))
            for one in self.look.passes(unit["first"], videos, dataset.length):
                [decoded] = dataset.__getitems__([one])
                yield pa.table({
                    "pass": pa.array([_told(decoded, unit)], pa.string()),
                    "pixels": pa.array([decoded.pixels.numpy().tobytes()], pa.large_binary()),
                })  # fmt: skip


class ClipEncoder:
    """Clips to features: a class for `map_batches`, for processes with the model."""

    def __init__(
        self,
        checkpoint: str,
        settings: Settings,
        threads: int | None = None,
        **options: Any,
    ) -> None:
        """Load the model.

        Args:
            checkpoint: what `load` takes.
            settings: what is extracted.
            threads: of the CPU, if it computes there: they change the last bits. Ray's when None.
            **options: device, amp, … of `load`.

        Raises:
            UserError: as `load`; or the model hasn't what the settings ask for.
        """
        if threads:
            torch.set_num_threads(threads)
        predictor = load(checkpoint, **options)
        self.settings = settings
        self.encoder = Encoder(predictor, settings.level, settings.layer, settings.batch_size)
        self.look = look_of(predictor, settings)
        self.notice = ShortNotice()

    def __call__(self, passes: Any) -> Any:
        """Make a table of features, with the column `clip` beside those of `table_of`."""
        import pyarrow as pa

        rows: list[VideoFeatures] = []
        first: list[int] = []
        for text, pixels in zip(passes["pass"].to_pylist(), passes["pixels"], strict=True):
            decoded, names = _decoded(json.loads(text), pixels.as_buffer())
            crops, sliding = self.look.testing.num_crops, self.look.windows is not None
            for read, features, times in features_of(self.encoder, decoded, crops, sliding):
                if read.short:
                    self.notice(names[read.piece.index], read.short)
                told = (names[read.piece.index], features, times, read.damage, read.error)
                row = VideoFeatures(read.piece.index, *told)
                rows.append(stored(row, self.settings.fp16))
                first.append(read.piece.first)
        return table_of(rows).append_column("clip", pa.array(first, pa.int64()))


def features_dataset(
    videos: Iterable[str | os.PathLike[str]],
    checkpoint: str,
    settings: Settings | None = None,
    *,
    decoders: int | tuple[int, int] = 1,
    encoders: int | tuple[int, int] = 1,
    num_gpus: float = 0,
    threads: int | None = None,
    reader: VideoReader | None = None,
    **options: Any,
) -> Any:
    """Return a `ray.data.Dataset` of features; nothing is computed until it is consumed.

    Args:
        videos: paths that all machines can read.
        checkpoint: what `load` takes; on all machines, too.
        settings: what is extracted; `part` and `file_format` play no part.
        decoders: processes that decode, one core each; or (least, most).
        encoders: processes with the model; or (least, most).
        num_gpus: of each of them; 0: they compute on the CPU.
        threads: of each of them, on the CPU.
        reader: reads files; by PyAV when None. It knows the rate of folders of images:
            `VideoReader(frames_fps=25)`.
        **options: device, amp, sampling_rate and overrides of `load`.

    Raises:
        UserError: there is no video; or what the settings ask for the model doesn't have.
    """
    import ray.data

    settings = settings or Settings()
    options = {"device": "cuda" if num_gpus else "cpu"} | options
    predictor = load(checkpoint, **{**options, "device": "cpu"})
    Encoder(predictor, settings.level, settings.layer)  # what it hasn't is told here
    look, described = look_of(predictor, settings), Described.of(predictor.model)
    paths = [record.path for record in records_of(videos)]
    units = [_unit(i, paths[i : i + look.group]) for i in range(0, len(paths), look.group)]
    return (
        ray.data.from_items(units)
        .map_batches(
            ClipDecoder,
            fn_constructor_args=(described, look, reader),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=1,
            concurrency=decoders,
        )
        .map_batches(
            ClipEncoder,
            fn_constructor_args=(checkpoint, settings, threads),
            fn_constructor_kwargs=options,
            batch_size=1,
            batch_format="pyarrow",
            num_gpus=num_gpus,
            concurrency=encoders,
        )
    )


def _unit(first: int, paths: list[str]) -> dict[str, str]:
    """Return a row of neighbours that are decoded together; JSON holds names that aren't text."""
    return {"videos": json.dumps({"first": first, "paths": paths})}


def _told(decoded: DecodedPass, unit: dict[str, Any]) -> str:
    """Return all of a pass but its pixels."""
    pieces = []
    for read in decoded.pieces:
        piece = asdict(read.piece) | {"index": unit["first"] + read.piece.index}
        times = {"times": read.times.tolist(), "middles": read.middles.tolist()}
        rest = {"damage": read.damage, "error": read.error, "short": read.short}
        path = unit["paths"][read.piece.index]
        pieces.append({"piece": piece, "path": path, "read": times | rest})
    return json.dumps({"shape": [*decoded.pixels.shape], "pieces": pieces})


def _decoded(told: dict[str, Any], pixels: Any) -> tuple[DecodedPass, dict[int, str]]:
    """Return what `_told` told, and the paths of its videos."""
    pieces, paths = [], {}
    for one in told["pieces"]:
        piece, read = Piece(**one["piece"]), one["read"]
        times, middles = (np.array(read[name], np.float64) for name in ("times", "middles"))
        words = (read[name] for name in ("damage", "error", "short"))
        pieces.append(ReadPiece(piece, times, middles, *words))
        paths[piece.index] = one["path"]
    array = np.frombuffer(pixels, np.float32).reshape(told["shape"])
    return DecodedPass(0, pieces, torch.from_numpy(array.copy())), paths
