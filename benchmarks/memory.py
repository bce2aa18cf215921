"""Peak memory of what once took gigabytes: the scores of a long test, a clip of 8K frames.

Each way runs in a process of its own; what the libraries take by themselves is shown first.

    python benchmarks/memory.py

"Before" is what the code did until scores were kept by rows, and frames cut as they come: a table
of every view on every rank, and a clip of full frames.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch

from timesformer.clips.ensemble import ensemble
from timesformer.clips.sampling import RateSampler
from timesformer.clips.transform import EvalTransform
from timesformer.datasets.lists.records import Record
from timesformer.datasets.video.reader import VideoReader
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.engine.scoring import Rows
from timesformer.utils.text import format_table

V, VIEWS, K = 35_000, 48, 1_059  # HowTo100M's test set, the views and classes of its recipe
BATCH = 8  # videos whose scores come at once
WIDTH, HEIGHT, FRAMES = 7680, 4320, 32


def nothing(video: str) -> None:
    """Import, no more."""


def dense_table(video: str) -> None:
    """Keep every view of every video."""
    generator = torch.Generator().manual_seed(0)
    scores, seen = torch.zeros(V, VIEWS, K), torch.zeros(V, VIEWS)
    for start in range(0, V, BATCH):
        batch = torch.randn(min(BATCH, V - start), VIEWS, K, generator=generator)
        scores[start : start + BATCH] = batch
        seen[start : start + BATCH] += 1
    ensemble(scores, "sum")


def rows(video: str) -> None:
    """Keep a row a video."""
    generator = torch.Generator().manual_seed(0)
    kept = Rows((V, VIEWS, K), "sum", several=False, keep_views=False)
    views = torch.arange(VIEWS)
    for start in range(0, V, BATCH):
        count = min(BATCH, V - start)
        batch = torch.randn(count, VIEWS, K, generator=generator)
        index = torch.arange(start, start + count).repeat_interleave(VIEWS)
        kept.add(index, views.repeat(count), batch.flatten(0, 1))
    kept.joined([], [])


def full_frames(video: str) -> None:
    """Read all frames of the clip, then make what the model takes of them."""
    sampler = RateSampler(FRAMES, 1)
    clips = VideoReader()(video, lambda n, fps: [sampler.place(n, fps, (0, 1))])
    EvalTransform(256, 224, 1)(clips.frames[0])


def cut_frames(video: str) -> None:
    """Cut each frame as it comes."""
    dataset = VideoDataset(
        [Record(video, 0)], RateSampler(FRAMES, 1), EvalTransform(256, 224, 1), "val"
    )
    dataset[0]


def measure(way: Callable[[str], None], video: str, results: multiprocessing.Queue) -> None:
    """Run one way, and tell its peak in MiB and its seconds."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    way(video)
    seconds = time.perf_counter() - start
    results.put((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, seconds))


def write_8k(path: Path) -> None:
    """Write a video of moving noise."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (HEIGHT // 40, WIDTH // 40, 3), dtype=np.uint8)
    image = small.repeat(40, 0).repeat(40, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"preset": "ultrafast", "g": "8"}
        for i in range(FRAMES + 2):
            frame = av.VideoFrame.from_ndarray(np.roll(image, 40 * i, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def main() -> None:
    """Print the table."""
    print(f"Python {sys.version.split()[0]}, torch {torch.__version__}, PyAV {av.__version__}")
    context = multiprocessing.get_context("spawn")
    table: list[tuple[str, ...]] = [("what", "peak MiB", "seconds")]
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "8k.mp4"
        write_8k(video)
        for name, way in (
            ("libraries alone", nothing),
            (f"scores of {V:,} × {VIEWS} × {K:,}, before: all views", dense_table),
            (f"scores of {V:,} × {VIEWS} × {K:,}, after: a row a video", rows),
            (f"clip of {FRAMES} frames of {WIDTH}×{HEIGHT}, before: full frames", full_frames),
            (f"clip of {FRAMES} frames of {WIDTH}×{HEIGHT}, after: cut as they come", cut_frames),
        ):
            results = context.Queue()
            process = context.Process(target=measure, args=(way, str(video), results))
            process.start()
            peak, seconds = results.get()
            process.join()
            table.append((name, f"{peak:,.0f}", f"{seconds:.1f}"))
    print(format_table(table))


if __name__ == "__main__":
    main()
