"""Measures what loading costs on your own videos, against code that converts every frame.

python benchmarks/loading.py --videos FOLDER [--output FILE]

All contestants take turns in one process, file by file, with one torch thread as in a loader's
worker. The usual code decodes a file to its end with PyAV as it comes, turns every frame into an
RGB array, picks the clip's frames, normalises floats and resizes them; it does so again for every
view of a test video. PyAV converts each frame with a thread for every core, which is slower than
with one, all the more where the cores are busy: so the usual code is measured with one, too.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from every_frame import (
    EVAL,
    NORMALIZE,
    SAMPLER,
    TRAIN,
    Decoded,
    convert_every_frame,
    pick,
    usual_train_clip,
    usual_view,
)
from report import environment, find_videos
from tqdm import tqdm

from timesformer.clips.sampling import ClipPosition, ViewGrid
from timesformer.datasets.lists.records import Record
from timesformer.datasets.loader import Batch, TrainBatches, VideoLoader, collate
from timesformer.datasets.video import decode as decoder
from timesformer.datasets.video.file import open_video, read_info
from timesformer.datasets.video.index import Deadline
from timesformer.datasets.video.reader import VideoReader
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.prepare.transcode import TranscodeSettings, transcode
from timesformer.utils.errors import ConfigError, UserError, VideoError, run_tool
from timesformer.utils.rng import keyed_rng
from timesformer.utils.text import format_table

SEED, BATCH = 0, 4
OURS, USUAL, ONE_THREAD = "ours", "every frame", "every frame, one thread"
PREPARED, TORCHCODEC = "prepared", "torchcodec"
STAGES = ("open, index", "decode", "convert", "resize, crop", "collate", "normalise")
PROCESS = Path("/proc/self")
RATIO_HEADER = (
    "", "ours/s", "usual/s", "ratio", "least", "greatest", "CPU ratio", "one thread",
    "least file", "goal",
)  # fmt: skip
RATIO_NOTES = """\
Clips or videos a second over all files, and ratios of time: the median, least and greatest of the
rounds; of CPU time; to the usual code with one thread, and that for the file it is least for."""
MEMORY_HEADER = (
    "memory", "items", "RSS MiB at start", "middle", "end", "descriptors", "threads"
)  # fmt: skip

Contestant = Callable[[int, int], object]  # does its work for (file, round)


def train_set(paths: Sequence[str], backend: str = "pyav") -> VideoDataset:
    """Make our training set of these files."""
    records = [Record(path, 0) for path in paths]
    return VideoDataset(records, SAMPLER, TRAIN, "train", seed=SEED, reader=VideoReader(backend))


def test_set(paths: Sequence[str], clips: int) -> VideoDataset:
    """Make our test set of these files, `clips` × 3 views of each."""
    views = ViewGrid(clips, EVAL.num_crops)
    return VideoDataset([Record(path, 0) for path in paths], SAMPLER, EVAL, "test", views=views)


def prepare_videos(folder: Path, output: Path) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Prepare every video of a folder, as `timesformer prepare-data` does.

    Returns:
        The prepared file of each video, and (file, why) of those that can't be decoded.

    Raises:
        UserError: there is no video.
    """
    prepared: dict[str, str] = {}
    bad = []
    for path in tqdm(find_videos(folder), desc="prepare", unit="video", disable=None):
        target = output / f"{len(prepared)}.mp4"
        try:
            transcode(path, target, TranscodeSettings())
            prepared[str(path)] = str(target)
        except VideoError as error:
            bad.append((str(path), error.reason))
    if not prepared:
        raise UserError(f"--videos {folder}: no video there that can be decoded")
    return prepared, bad


def check_fairness(paths: Sequence[str]) -> tuple[list[str], float, float]:
    """Compare one training clip, and the views of 10 clips × 3 crops, of every file.

    Returns:
        The files of which the two sides chose other frames, and for the others the greatest
        difference of pixels, of 255, in training clips and in views.
    """
    differing, in_clips, in_views = [], 0.0, 0.0
    train, test = train_set(paths), test_set(paths, 10)
    for i, path in enumerate(tqdm(paths, desc="compare", unit="video", disable=None)):
        video = convert_every_frame(path)
        if not same_frames(path, video, [*test.views.clips, None], i):
            differing.append(path)
            continue
        usual = usual_train_clip(video, keyed_rng("clip", SEED, 0, i))
        in_clips = max(in_clips, pixel_difference(train[(i, 0)][0], usual))
        for number, view in enumerate(test[i][0]):
            clip, crop = test.views.split(number)
            usual = usual_view(video, test.views.clips[clip], crop)
            in_views = max(in_views, pixel_difference(view, usual))
    return differing, in_clips, in_views


def pixel_difference(ours: torch.Tensor, usual: torch.Tensor) -> float:
    """Return the greatest difference, of 255, of pixels and what was normalised."""
    return float((NORMALIZE(ours) - usual).abs().max()) * 255 * max(NORMALIZE.std)


def same_frames(
    path: str, video: Decoded, views: Sequence[tuple[int, int] | None], index: int
) -> bool:
    """Tell whether both sides choose the same frames, to the bit."""

    def place(frames: int, fps: float) -> list[ClipPosition]:
        rng = keyed_rng("clip", SEED, 0, index)
        return [SAMPLER.place(frames, fps, view, rng) for view in views]

    ours = decoder.load_clips(path, place).frames
    usual = [pick(video, position) for position in place(video.length, video.fps)]
    return all(np.array_equal(a.numpy(), b) for a, b in zip(ours, usual, strict=True))


def race(
    contestants: Mapping[str, Contestant], files: int, rounds: int, desc: str
) -> dict[str, np.ndarray]:
    """Let contestants take turns; returns the seconds of each, (wall | CPU, rounds, files)."""
    seconds = {name: np.zeros((2, rounds, files)) for name in contestants}
    names = list(contestants)
    with tqdm(total=rounds * files, desc=desc, unit="video", disable=None) as bar:
        for turn, file in np.ndindex(rounds, files):
            first = (turn + file) % len(names)
            for name in names[first:] + names[:first]:
                wall, cpu = time.perf_counter(), time.process_time()
                contestants[name](file, turn)
                used = time.perf_counter() - wall, time.process_time() - cpu
                seconds[name][:, turn, file] = used
            bar.update()
    return seconds


def train_race(prepared: Mapping[str, str], rounds: int) -> tuple[dict[str, np.ndarray], str]:
    """Race for training clips; returns seconds, and why torchcodec isn't there, or ""."""
    paths = list(prepared)
    sets = {OURS: train_set(paths), PREPARED: train_set(list(prepared.values()))}
    missing = ""
    try:
        sets[TORCHCODEC] = train_set(paths, TORCHCODEC)
    except ConfigError as error:
        missing = str(error)

    def usual(file: int, turn: int, threads: int | None = None) -> None:
        usual_train_clip(
            convert_every_frame(paths[file], threads), keyed_rng("clip", SEED, turn, file)
        )

    def through(dataset: VideoDataset) -> Contestant:
        return lambda file, turn: NORMALIZE(dataset[(file, turn)][0])

    contestants: dict[str, Contestant] = {name: through(data) for name, data in sets.items()}
    contestants |= {USUAL: usual, ONE_THREAD: partial(usual, threads=1)}
    return race(contestants, len(paths), rounds, "training"), missing


def test_race(paths: Sequence[str], clips: int, rounds: int) -> dict[str, np.ndarray]:
    """Race for test videos. The usual code's views cost the same: it makes those of one clip."""
    dataset = test_set(paths, clips)

    def usual(file: int, turn: int, threads: int | None = None) -> None:
        for crop in range(EVAL.num_crops):
            video = convert_every_frame(paths[file], threads)
            usual_view(video, (turn % clips, clips), crop)

    def ours(file: int, turn: int) -> None:
        NORMALIZE(dataset[file][0])

    contestants: dict[str, Contestant] = {USUAL: usual, OURS: ours}
    contestants[ONE_THREAD] = partial(usual, threads=1)
    seconds = race(contestants, len(paths), rounds, f"{clips}x3 views")
    return {name: x if name == OURS else x * clips for name, x in seconds.items()}


def loader_overhead(paths: Sequence[str], rounds: int) -> np.ndarray:
    """Return what a loader adds to decoding and transforming the same clips, in %, by round."""
    sampler = TrainBatches(len(paths), min(BATCH, len(paths)), rank=0, size=1, seed=SEED)
    loader = VideoLoader(train_set(paths), batch_sampler=sampler, num_workers=0, collate_fn=collate)
    batches: Iterator[Batch] = iter(())

    def through(number: int, turn: int) -> None:
        nonlocal batches
        if number == 0:
            loader.set_epoch(turn)
            batches = iter(loader)
        next(batches)

    def pure(number: int, turn: int) -> None:
        for index, epoch in keys[turn][number]:
            rng = keyed_rng("clip", SEED, epoch, index)
            TRAIN(read_clip(paths[index], rng), rng)

    keys = []
    for turn in range(rounds):
        loader.set_epoch(turn)
        keys.append(list(sampler))
    seconds = race({"loader": through, "pure": pure}, len(sampler), rounds, "loader")
    loader_seconds, pure_seconds = (x[0].sum(axis=1) for x in seconds.values())
    return 100 * (loader_seconds / pure_seconds - 1)


def read_clip(path: str, rng: np.random.Generator) -> torch.Tensor:
    """Decode a random clip (T, H, W, 3)."""
    return decoder.load_clips(path, lambda n, fps: [SAMPLER.place(n, fps, None, rng)]).frames[0]


def stage_times(paths: Sequence[str], rounds: int) -> np.ndarray:
    """Return the ms of each of STAGES for a mean training clip, the median of the rounds.

    What reading a clip takes beside opening the file and converting frames counts as decoding.
    """
    clock, totals = time.perf_counter, np.zeros((rounds, len(STAGES)))
    for turn, i in tqdm(list(np.ndindex(rounds, len(paths))), desc="stages", disable=None):
        start = clock()
        with open_video(paths[i]) as (container, stream):
            read_info(paths[i], container, stream, Deadline(paths[i], decoder.TIMEOUT))
        opening, converting, scaler = clock() - start, 0.0, VideoReformatter()
        with open_video(paths[i]) as (container, stream):
            for frame in islice(container.decode(stream), SAMPLER.num_frames):
                start = clock()
                scaler.reformat(frame, format="rgb24", threads=1).to_ndarray()
                converting += clock() - start
        rng, marks = keyed_rng("clip", SEED, turn, i), [clock()]
        frames = read_clip(paths[i], rng)
        marks.append(clock())
        clip, _ = TRAIN(frames, rng)
        marks.append(clock())
        batch = collate([(clip, 0, i, {"view": torch.tensor(0), "problems": []})] * BATCH)
        marks.append(clock())
        assert isinstance(batch, tuple)
        NORMALIZE(batch[0])
        marks.append(clock())
        reading, cutting, collating, normalising = np.diff(marks)
        decoding = reading - opening - converting
        per_clip = (collating / BATCH, normalising / BATCH)
        totals[turn] += (opening, decoding, converting, cutting, *per_clip)
    return 1e3 * np.median(totals, axis=0) / len(paths)


def footprint() -> tuple[float, int, int]:
    """Return this process's resident MiB, descriptors and threads."""
    pages = int((PROCESS / "statm").read_text().split()[1])
    descriptors, threads = (len(list((PROCESS / name).iterdir())) for name in ("fd", "task"))
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, descriptors, threads


def memory_rows(paths: Sequence[str], cycles: int) -> list[tuple[str, ...]]:
    """Read items over and over; rows of MEMORY_HEADER. Views take a tenth of the cycles."""
    rows: list[tuple[str, ...]] = []
    if not PROCESS.is_dir():
        return rows
    for name, dataset, count in (
        ("training clips", train_set(paths), cycles),
        ("10x3 views", test_set(paths, 10), max(cycles // 10, 2)),
    ):
        marks = []
        for cycle in tqdm(range(-2 * len(paths), count + 1), desc=f"memory, {name}", disable=None):
            if cycle in (0, count // 2, count):
                marks.append(footprint())
            with suppress(VideoError):  # files that can't be read must not leak either
                _ = dataset[cycle % len(paths)]
        sizes = (f"{resident:,.0f}" for resident, _, _ in marks)
        counts = (f"{marks[0][i]} -> {marks[-1][i]}" for i in (1, 2))
        rows.append((name, f"{count:,}", *sizes, *counts))
    return rows


def ratio_row(
    name: str, seconds: Mapping[str, np.ndarray], ours: str, goal: str = ""
) -> tuple[str, ...]:
    """Return the cells under RATIO_HEADER."""
    (fast, fast_cpu), (slow, slow_cpu) = seconds[ours], seconds[USUAL]
    one_thread = seconds[ONE_THREAD][0]
    rates = (x.shape[1] / np.median(x.sum(axis=1)) for x in (fast, slow))
    rounds = slow.sum(axis=1) / fast.sum(axis=1)
    against = ((slow_cpu, fast_cpu), (one_thread, fast))
    others = (np.median(x.sum(axis=1) / y.sum(axis=1)) for x, y in against)
    by_file = np.median(one_thread / fast, axis=0)
    cells = (*rates, np.median(rounds), rounds.min(), rounds.max(), *others, by_file.min())
    return (name, *(f"{x:.2f}" for x in cells), goal)


def report(folder: Path, rounds: int, cycles: int) -> str:
    """Measure everything; returns the text."""
    with tempfile.TemporaryDirectory() as temporary:
        prepared, bad = prepare_videos(folder, Path(temporary))
        paths = list(prepared)
        differing, in_clips, in_views = check_fairness(paths)
        training, missing = train_race(prepared, rounds)
    rows = [RATIO_HEADER, ratio_row("training clip", training, OURS, "1.9")]
    if TORCHCODEC in training:
        rows.append(ratio_row("  by torchcodec", training, TORCHCODEC))
    rows.append(ratio_row("  of a prepared file", training, PREPARED, "10"))
    for clips in (1, 10):
        row = ratio_row(f"test video, {clips}x3", test_race(paths, clips, rounds), OURS, "5")
        rows.append(row)
    overheads = loader_overhead(paths, rounds)
    stages = [f"{x:.2f}" for x in stage_times(paths, rounds)]
    memory = [MEMORY_HEADER, *memory_rows([*paths, *(path for path, _ in bad)], cycles)]
    lines = [
        environment(),
        f"{folder.name}: {len(paths)} files, {len(bad)} left out; {rounds} rounds",
        *(f"  left out: {Path(path).relative_to(folder)}: {reason}" for path, reason in bad),
        "",
        f"The same frames, to the bit, in {len(paths) - len(differing)} of {len(paths)} files. "
        "There pixels differ, of 255,",
        f"by at most {in_clips:.3f} in training clips (goal 1), {in_views:.5f} in views.",
        *(f"  other frames: {Path(path).relative_to(folder)}" for path in differing),
        "",
        format_table(rows),
        RATIO_NOTES,
        *([missing] if missing else []),
        "",
        f"A loader adds {np.median(overheads):.1f} % to decoding and transforming "
        f"({', '.join(f'{x:.1f}' for x in overheads)} by round; goal 10)",
        "",
        format_table([("stage", *STAGES), ("ms a training clip", *stages)]),
        "",
        format_table(memory) if len(memory) > 1 else "No /proc here, so memory isn't measured.",
    ]  # fmt: skip
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the report there too")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of each race (5)")
    parser.add_argument("--cycles", type=int, default=2000, metavar="N", help="for memory (2000)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of torch (1)")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    text = report(args.videos, args.rounds, args.cycles)
    print(text)
    if args.output:
        args.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_tool(main)
