"""Reports how safely the decoder reads videos: yours, and damaged copies of them.

python benchmarks/decode_report.py --videos FOLDER [--mutations N] [--output FILE]
python benchmarks/decode_report.py --videos FOLDER --replay SEED

First every file is decoded, and random sets of its frames must equal, to the bit, those of a plain
PyAV loop over the whole file. Then small files are damaged in ways drawn by a seed, and what the
decoder makes of each is put into one of the OUTCOMES. All of it happens in processes of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from report import find_videos
from tqdm import tqdm

from timesformer.clips.sampling import ClipPosition
from timesformer.datasets.video import decode as decoder
from timesformer.datasets.video.file import ANY_TAGS
from timesformer.utils.errors import UserError, VideoError, run_tool
from timesformer.utils.rng import keyed_rng
from timesformer.utils.text import format_table

OUTCOMES = {
    "exact": "the frames of a plain strict decode",
    "intact": "the original's frames, though a strict decode meets an error on its way to them",
    "short": "as exact, but the file ends early, and neither side can tell: its last frame, again",
    "VideoError": "refused",
    "flagged": "read with a note of the damage",
    "no reference": "read without a note, and the plain decode crashed or hung",
    "other exception": "an error of another type",
    "silent difference": "wrong or damaged frames without a note",
    "crash": "the process died",
    "hang": "no answer in time",
}
BAD = ("other exception", "silent difference", "crash", "hang")
KINDS = ("bit flips", "truncation", "splice", "other suffix", "zeroed blocks")
SUFFIXES = (".mp4", ".mkv", ".avi", ".webm", ".ts", ".mov", ".flv", ".h264", ".txt")
SMALL = 3_000_000  # bytes of a file worth damaging
MEMORY = 4 * 2**30  # bytes of a worker process, where the system can limit it
TIME_LIMIT = 60.0  # seconds for a damaged file
FILE_TIME_LIMIT = 900.0  # seconds for one that isn't
STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}
INDEX_SETS, SET_SIZE = 5, 8


@dataclass(frozen=True)
class Row:
    """What came of a file, or of a damaged one.

    Attributes:
        task: the path, or the seed.
        outcome: of a damaged file, see OUTCOMES; else a sentence.
        kind: of the damage.
        source: the file that was damaged.
        detail: what went wrong.
        seconds: spent in our decoder.
        frames: of the whole file.
        equal: index sets with the right frames.
    """

    task: str | int
    outcome: str
    kind: str = ""
    source: str = ""
    detail: str = ""
    seconds: float = 0.0
    frames: int = 0
    equal: int = 0


Work = Callable[[Any], Iterator[Row]]  # the last row counts; earlier ones if the process dies


def plain_decode(path: str, strict: bool) -> Iterator[VideoFrame]:
    """Decode a file from its start to its end, with nothing but PyAV."""
    with av.open(path, **ANY_TAGS) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        if strict:
            stream.codec_context.options = STRICT
        yield from container.decode(stream)


def upright(frame: VideoFrame) -> np.ndarray:
    """Convert a frame to upright RGB (H, W, 3)."""
    return np.rot90(frame.to_ndarray(format="rgb24", threads=1), round(frame.rotation / 90))


def compare(path: str, wanted: Sequence[int], images: np.ndarray, strict: bool) -> tuple[str, int]:
    """Compare images (N, H, W, 3) with the wanted frames of a plain decode, numbers ascending.

    Returns:
        What is wrong, "" for nothing, and the number of frames decoded until the last wanted one.
    """
    todo = deque(zip(wanted, images, strict=True))
    number, frame, wrong = -1, None, []
    try:
        for number, frame in enumerate(plain_decode(path, strict)):
            if todo[0][0] > number:
                continue
            if frame.is_corrupt:
                return f"frame {number} is marked as damaged", number + 1
            reference = upright(frame)
            while todo and todo[0][0] == number:
                place, image = todo.popleft()
                if not np.array_equal(image, reference):
                    wrong.append(place)
            if not todo:
                break
    except Exception as error:
        return f"a strict decode ends at frame {number + 1} with {type(error).__name__}", number + 1
    if frame is not None:
        wrong += [place for place, image in todo if not np.array_equal(image, upright(frame))]
    return f"frames {wrong} differ" if wrong else "", number + 1


def check_file(path: str) -> Iterator[Row]:
    """Decode one undamaged file, and compare random frames of it."""
    start, count, error = time.perf_counter(), 0, ""
    try:
        for _ in decoder.decode_all(path, FILE_TIME_LIMIT):
            count += 1
    except VideoError as caught:
        error = caught.reason
    row = Row(path, error or "ok", seconds=time.perf_counter() - start, frames=count)
    yield row
    if not count:
        return
    rng, details = keyed_rng("report", count), []
    for i in range(INDEX_SETS):
        numbers = np.sort(rng.integers(count, size=SET_SIZE)).tolist()
        if i == 0 and not error:
            numbers[-2:] = [count - 1, count + 3]  # the end, and beyond it
        try:
            clips = decoder.load_frames(path, numbers)
        except VideoError as caught:
            details.append(caught.reason)
            continue
        if clips.damage:
            details.append(f"flagged: {clips.damage}")
        wrong, _ = compare(path, numbers, clips.frames[0].numpy(), strict=False)
        row = replace(row, equal=row.equal + (not wrong))
        details.append(wrong)
    yield replace(row, detail="; ".join(dict.fromkeys(filter(None, details))))


@dataclass(frozen=True)
class Damaged:
    """A damaged copy of a file."""

    kind: str
    source: Path
    suffix: str
    data: bytes


def damage(files: Sequence[Path], seed: int) -> Damaged:
    """Damage one of these files, as the seed says."""
    rng = keyed_rng("report", seed)
    kind, source = KINDS[int(rng.integers(len(KINDS)))], files[int(rng.integers(len(files)))]
    data, suffix = bytearray(source.read_bytes()), source.suffix
    if kind == "bit flips":
        for bit in rng.integers(8 * len(data), size=int(2 ** rng.uniform(0, 6))).tolist():
            data[bit // 8] ^= 1 << bit % 8
    elif kind == "truncation":
        del data[int(rng.integers(1, len(data))) :]
    elif kind == "splice":
        other = files[int(rng.integers(len(files)))].read_bytes()
        head, tail = (int(rng.integers(1, len(x))) for x in (data, other))
        data = data[:head] + other[tail:]
    elif kind == "other suffix":
        suffix = SUFFIXES[int(rng.integers(len(SUFFIXES)))]
    else:
        for _ in range(int(rng.integers(1, 5))):
            first, size = int(rng.integers(len(data))), int(2 ** rng.uniform(4, 12))
            data[first : first + size] = bytes(len(data[first : first + size]))
    return Damaged(kind, source, suffix, bytes(data))


def check_damaged(files: Sequence[Path], folder: Path, seed: int) -> Iterator[Row]:
    """Read frames of a damaged file, and judge what the decoder made of it."""
    case = damage(files, seed)
    length = decoder.probe(case.source).frames
    path = folder / f"{seed}{case.suffix}"
    path.write_bytes(case.data)
    try:
        row = Row(seed, "", case.kind, case.source.name)
        yield row  # says what it was about, should the process die
        start = time.perf_counter()
        try:
            wanted, clips = read_frames(str(path), length, keyed_rng("report", seed, 1))
        except VideoError as error:
            outcome, detail = "VideoError", error.reason
        except Exception as error:
            outcome, detail = "other exception", f"{type(error).__name__}: {error}"
        else:
            outcome, detail = ("flagged" if clips.damage else "no reference"), clips.damage
        row = replace(row, outcome=outcome, detail=detail, seconds=time.perf_counter() - start)
        yield row
        if outcome == "no reference":
            outcome, detail = judge(case, str(path), wanted, clips.frames[0].numpy())
            yield replace(row, outcome=outcome, detail=detail)
    finally:
        path.unlink()


def read_frames(
    path: str, length: int, rng: np.random.Generator
) -> tuple[list[int], decoder.Clips]:
    """Read random frames of a file in one of the two ways there are; numbers may be too large."""
    if rng.random() < 0.5:
        numbers = np.sort(rng.integers(length, size=SET_SIZE)).tolist()
        return numbers, decoder.load_frames(path, numbers, TIME_LIMIT / 2)
    numbers = []

    def place(frames: int, fps: float) -> list[ClipPosition]:
        # Called again when the file is read again: the same shares of the same length.
        numbers[:] = np.floor(shares * frames).astype(int).tolist()
        return [ClipPosition(0.0, float(frames), tuple(numbers), timed=False)]

    shares = np.sort(rng.random(SET_SIZE))
    clips = decoder.load_clips(path, place, TIME_LIMIT / 2)
    return numbers, clips


def judge(case: Damaged, path: str, wanted: Sequence[int], images: np.ndarray) -> tuple[str, str]:
    """Return outcome and detail for frames without a note of damage."""
    wrong, count = compare(path, wanted, images, strict=True)
    if not wrong:
        return ("exact" if wanted[-1] < count else "short"), ""
    if case.kind != "splice" and not compare(str(case.source), wanted, images, strict=False)[0]:
        return "intact", wrong
    return "silent difference", f"{wrong}; wanted {wanted}"


def serve(connection: Connection, work: Work) -> None:
    """Work on tasks from a pipe until None comes."""
    with suppress(ImportError, ValueError, OSError):  # not everywhere, or there is a lower limit
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    while (task := connection.recv()) is not None:
        for row in work(task):
            connection.send(row)
        connection.send(None)


class Worker:
    """A process that may die or hang."""

    def __init__(self, work: Work) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, work), daemon=True)
        self.process.start()
        theirs.close()
        self.task: Any = None
        self.row: Row | None = None
        self.deadline = 0.0

    def start(self, task: Any, limit: float) -> None:
        """Give it a task."""
        self.task, self.row = task, None
        self.deadline = time.monotonic() + limit
        self.connection.send(task)

    def poll(self) -> Row | None:
        """Return the task's row if it is done, or the process has died or hangs."""
        try:
            while self.connection.poll():
                if (row := self.connection.recv()) is None:
                    return self.row
                self.row = row
        except (EOFError, OSError):
            return self._broken("crash")
        if time.monotonic() > self.deadline:
            return self._broken("hang")
        return None

    def _broken(self, outcome: str) -> Row:
        self.process.kill()
        self.process.join()
        row = self.row or Row(self.task, outcome)
        return row if row.outcome == "no reference" else replace(row, outcome=outcome)


def in_workers(work: Work, tasks: Sequence[Any], processes: int, limit: float) -> Iterator[Row]:
    """Work on tasks in processes that are replaced when they die or hang; rows as they come."""
    todo, busy = deque(tasks), [Worker(work) for _ in range(min(processes, len(tasks)))]
    for worker in busy:
        worker.start(todo.popleft(), limit + 60)  # its imports take a while
    while busy:
        wait([worker.connection for worker in busy], timeout=1.0)
        for worker in list(busy):
            if (row := worker.poll()) is None:
                continue
            yield row
            busy.remove(worker)
            alive = worker.process.is_alive()
            if todo:
                worker = worker if alive else Worker(work)
                worker.start(todo.popleft(), limit if alive else limit + 60)
                busy.append(worker)
            elif alive:
                worker.connection.send(None)
                worker.process.join()


def worth_damaging(paths: Sequence[Path]) -> list[Path]:
    """Return the small files of which PyAV decodes a frame.

    Raises:
        UserError: there is none.
    """
    files = []
    for path in paths:
        with suppress(Exception):
            if path.stat().st_size < SMALL and next(plain_decode(str(path), strict=False)):
                files.append(path)
    if not files:
        raise UserError(f"--videos: no video below {SMALL / 1e6:.0f} MB to damage")
    return files


def report_files(folder: Path, paths: Sequence[Path], processes: int) -> str:
    """Check every file; returns a table of them."""
    tasks = [str(path) for path in paths]
    work = in_workers(check_file, tasks, processes, FILE_TIME_LIMIT)
    rows = list(tqdm(work, total=len(tasks), desc="files", unit="video", disable=None))
    table: list[tuple[object, ...]] = [("file", "frames", "seconds", "sets equal", "result")]
    for row in sorted(rows, key=lambda row: str(row.task)):
        name = Path(str(row.task)).relative_to(folder)
        result = "; ".join(filter(None, (row.outcome, row.detail)))
        equal = f"{row.equal} of {INDEX_SETS}" if row.frames else ""
        table.append((name, row.frames, f"{row.seconds:.2f}", equal, result))
    return format_table(table)


def report_damaged(files: Sequence[Path], seeds: Sequence[int], processes: int) -> str:
    """Check damaged files; returns tables of what came of them, and the bad cases."""
    with tempfile.TemporaryDirectory() as folder:
        check = partial(check_damaged, files, Path(folder))
        work = in_workers(check, seeds, processes, TIME_LIMIT)
        rows = list(tqdm(work, total=len(seeds), desc="damaged", unit="file", disable=None))
    counts = Counter((row.outcome, row.kind) for row in rows)
    table: list[tuple[object, ...]] = [("outcome", *KINDS, "all", "")]
    for outcome, meaning in OUTCOMES.items():
        cells = [counts[outcome, kind] for kind in KINDS]
        table.append((outcome, *cells, sum(row.outcome == outcome for row in rows), meaning))
    slowest = max(rows, key=lambda row: row.seconds)
    return "\n".join(
        [
            f"{len(rows)} damaged copies of {len(files)} files, seeds {seeds[0]} to {seeds[-1]}",
            "",
            format_table(table),
            "",
            f"the slowest took our decoder {slowest.seconds:.1f} s ({describe(slowest)})",
            *(describe(row) for row in sorted(rows, key=lambda r: r.task) if row.outcome in BAD),
        ]
    )


def describe(row: Row) -> str:
    """Say in a line what came of a damaged file."""
    return f"seed {row.task}: {row.kind} of {row.source}: {row.outcome} {row.detail}".rstrip()


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the report there too")
    parser.add_argument("--mutations", type=int, default=0, metavar="N", help="damaged files (0)")
    parser.add_argument("--seed", type=int, default=0, help="of the first damaged file (0)")
    parser.add_argument("--replay", type=int, metavar="SEED", help="write and check this one only")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), metavar="N")
    args = parser.parse_args(argv)
    paths = find_videos(args.videos)
    if args.replay is not None:
        files = worth_damaging(paths)
        case = damage(files, args.replay)
        copy = Path(f"replay_{args.replay}{case.suffix}")
        copy.write_bytes(case.data)
        print(f"{copy}: the damaged file")
        text = report_damaged(files, [args.replay], 1)
    else:
        text = report_files(args.videos, paths, args.processes)
        if args.mutations:
            seeds = range(args.seed, args.seed + args.mutations)
            text += "\n\n" + report_damaged(worth_damaging(paths), seeds, args.processes)
    print(text)
    if args.output:
        args.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_tool(main)
