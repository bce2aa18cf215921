"""Features of videos by Ray Data on this machine, held against those of `timesformer extract`.

    python examples/ray_extract.py FOLDER_OF_VIDEOS CHECKPOINT [--stride 1.0]

Both compute on the CPU with one thread, and must be equal bit for bit. On a cluster, give
`features_dataset` more decoders, and encoders with `num_gpus=1`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import ray
import torch

from timesformer.inference.extract import extract
from timesformer.inference.features import read, rows_of
from timesformer.inference.given import find
from timesformer.inference.load import load
from timesformer.inference.settings import Settings
from timesformer.integrations.ray import features_dataset


def main() -> None:
    """Extract twice and compare; status 1 where features differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos")
    parser.add_argument("checkpoint")
    parser.add_argument("--stride", type=float)
    args = parser.parse_args()
    settings = Settings(stride=args.stride, batch_size=8)
    records = find([args.videos])
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        extract(load(args.checkpoint, device="cpu"), records, Path(folder), settings)
        core = {found.path: np.atleast_2d(found.features) for found in read(folder)}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    start = time.perf_counter()
    ds = features_dataset([r.path for r in records], args.checkpoint, settings, threads=1)
    pieces: dict[str, list[tuple[int, np.ndarray]]] = {}
    for table in ds.iter_batches(batch_format="pyarrow", batch_size=None):
        for clip, row in zip(table["clip"].to_pylist(), rows_of(table), strict=True):
            if not row.error:
                pieces.setdefault(row.path, []).append((clip, row.features))
    seconds = time.perf_counter() - start
    by_ray = {
        path: np.concatenate([features for _, features in sorted(rows, key=lambda row: row[0])])
        for path, rows in pieces.items()
    }
    equal = by_ray.keys() == core.keys() and all(
        np.array_equal(by_ray[path], core[path]) for path in core
    )
    print(f"{len(by_ray)} videos by Ray in {seconds:.1f} s, equal to the core's: {equal}")
    sys.exit(not equal)


if __name__ == "__main__":
    main()
