"""Makes copies of videos that load many times faster: small, with a keyframe every few frames.

python tools/prepare_data.py --cfg FILE --output DIR [--splits train val] [KEY VALUE ...]
python tools/prepare_data.py --input FOLDER --output DIR

The first form takes the videos of a recipe and writes lists of them to DIR as well; the second one
takes all videos of a folder. Both keep the tree of folders; every file becomes an .mp4. A copy has
the same frames at the same times, upright and without sound. Sources are never changed.

Interrupted? Run it again to go on. Videos that can't be read are listed in DIR/failed.csv.
Exit status: 0 all is done, 1 some videos failed, 2 it couldn't start or go on.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from timesformer.config.defaults import get_cfg
from timesformer.config.node import CfgNode
from timesformer.config.validate import check
from timesformer.datasets.catalogue.kinetics import Kinetics
from timesformer.datasets.catalogue.synthetic import Synthetic
from timesformer.datasets.catalogue.video_folder import VIDEO_SUFFIXES, VideoFolder
from timesformer.datasets.lists.records import Records
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.prepare.inspect import read_splits, take_splits, write_list
from timesformer.prepare.transcode import SUFFIX, TranscodeSettings, transcode
from timesformer.utils.errors import AnnotationError, UserError, VideoError, run_tool
from timesformer.utils.files import temporary_of
from timesformer.utils.processes import in_processes

MANIFEST = "prepare.json"  # in the output: how its videos were made
NAMES = "classes.txt"  # there, too
FORMAT = 1  # goes up when the same settings make other videos


class Job(NamedTuple):
    """A video to prepare."""

    source: str
    target: str


class Outcome(NamedTuple):
    """What became of it."""

    failure: str = ""
    skipped: bool = False


@dataclass(frozen=True)
class Prepare:
    """The work on one video; picklable, for worker processes."""

    settings: TranscodeSettings

    def __call__(self, job: Job) -> Outcome:
        """Transcodes; an unreadable source is an outcome, an unwritable target an error."""
        try:
            transcode(job.source, job.target, self.settings)
        except VideoError as error:
            return Outcome(error.reason)
        return Outcome()

    def crashed(self, job: Job) -> Outcome:
        """Outcome of a source that took its process down with it."""
        return Outcome("the decoder crashes on it, or it takes all memory")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    default = TranscodeSettings()
    parser = argparse.ArgumentParser(
        usage="%(prog)s (--cfg FILE | --input FOLDER) --output DIR [options] [KEY VALUE ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sources = parser.add_mutually_exclusive_group(required=True)
    sources.add_argument("--cfg", metavar="FILE", help="recipe whose videos to take")
    sources.add_argument("--input", type=Path, metavar="FOLDER", help="folder of videos to take")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--splits", nargs="+", metavar="SPLIT", help="train val test (all)")
    parser.add_argument(
        "--short-side", type=int, default=default.short_side, metavar="N",
        help="in pixels (%(default)s); smaller videos keep their size",
    )  # fmt: skip
    parser.add_argument(
        "--gop", type=int, default=default.gop, metavar="N",
        help="frames from one keyframe to the next (%(default)s): fewer load faster, more are "
        "smaller",
    )  # fmt: skip
    parser.add_argument(
        "--crf", type=int, default=default.crf, metavar="N",
        help="quality of x264 (%(default)s): less is better and larger",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N",
        help="processes (one for each core); 0: none but this one",
    )  # fmt: skip
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    args = parser.parse_args(argv)
    args.splits, args.opts = take_splits(args.splits, args.opts)
    if args.workers < 0:
        raise UserError(f"--workers {args.workers}: must be 0 or more")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = parse_args(argv)
    datasets: Mapping[str, VideoDataset] = {}
    cfg = get_cfg()
    if args.cfg:
        cfg.merge_from_file(args.cfg)
        cfg.merge_from_list(args.opts)
        check(cfg)
        datasets = find_splits(cfg, args.splits)
        base, sources = find_base(cfg, datasets)
    else:
        if args.splits or args.opts:
            raise UserError("--splits and KEY VALUE go with --cfg, not with --input")
        base, sources = args.input, find_videos(args.input, args.output)
    settings = TranscodeSettings(args.short_side, args.gop, args.crf, cfg.DATA.FRAMES_FPS)
    jobs = plan(sources, base, args.output)
    claim(args.output, settings)
    try:
        outcomes = run(jobs, settings, args.workers)
    except KeyboardInterrupt:
        print("stopped; run it again to go on", file=sys.stderr)
        sys.exit(130)
    finally:
        sweep(args.output)
    good = {job.source: job.target for job, outcome in outcomes.items() if not outcome.failure}
    for split, dataset in datasets.items():
        rows = [
            (Path(good[record.path]).relative_to(args.output).as_posix(), record.label)
            for record in dataset.records
            if record.path in good
        ]
        write_list(args.output / f"{split}.csv", rows, cfg)
        write_names(args.output / NAMES, dataset.class_names)
    summarise(outcomes, args.output)
    for hint in dict.fromkeys(how_to_train(dataset, args.output) for dataset in datasets.values()):
        print(hint)
    if len(good) < len(outcomes):
        sys.exit(1)


def find_splits(cfg: CfgNode, splits: Sequence[str]) -> dict[str, VideoDataset]:
    """Builds the splits that were asked for, or all that have a list."""
    datasets, unreadable = read_splits(cfg, splits)
    for split, reason in unreadable.items():
        if splits:
            raise AnnotationError(reason)
        print(f"without {split}: {reason}")
    return datasets


def find_base(cfg: CfgNode, datasets: Mapping[str, VideoDataset]) -> tuple[Path, list[str]]:
    """Finds the folder whose tree the output repeats, and the videos, each of them once."""
    paths = list(dict.fromkeys(r.path for d in datasets.values() for r in d.records))
    full = [os.path.abspath(path) for path in paths]  # noqa: PTH100  (links stay what they are)
    common = os.path.commonpath([os.path.dirname(path) for path in full])  # noqa: PTH120
    for folder in (cfg.DATA.PATH_PREFIX, cfg.DATA.PATH_TO_DATA_DIR, "."):
        base = os.path.abspath(folder or ".")  # noqa: PTH100
        if folder and os.path.commonpath([base, common]) == base:
            return Path(base), paths
    return Path(common), paths


def find_videos(folder: Path, output: Path) -> list[str]:
    """Lists the videos of a tree, without those that were put there by this tool."""
    if not folder.is_dir():
        raise UserError(f"--input {folder}: there is no such folder")
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (Path(place) / name).resolve() != output.resolve()
        )
        found += [
            str(Path(place) / name)
            for name in sorted(files)
            if Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".")
        ]
    if not found:
        raise UserError(f"--input {folder}: there are no videos in it")
    return found


def plan(sources: Iterable[str], base: Path, output: Path) -> list[Job]:
    """Gives each source its target.

    Raises:
        UserError: two sources have the same one, or a target is a source.
    """
    jobs: dict[str, Job] = {}
    for source in sources:
        place = Path(os.path.relpath(source, base))
        name = place.stem if place.suffix.lower() in VIDEO_SUFFIXES else place.name
        target = output / place.with_name(name + SUFFIX)
        job = Job(source, str(target))
        other = jobs.setdefault(job.target, job)
        if other is not job:
            raise UserError(
                f"{other.source} and {source} would both become {target}: rename one of them"
            )
        if os.path.abspath(source) == os.path.abspath(target):  # noqa: PTH100
            raise UserError(f"{source} would be overwritten: choose another --output")
    return list(jobs.values())


def claim(output: Path, settings: TranscodeSettings) -> None:
    """Notes in the folder how its videos are made, unless they were made otherwise."""
    wanted = {"format": FORMAT, **asdict(settings)}
    manifest = output / MANIFEST
    try:
        found = json.loads(manifest.read_text())
        differing = [key for key in wanted if found.get(key) != wanted[key]]
    except FileNotFoundError:
        output.mkdir(parents=True, exist_ok=True)
        if any(output.iterdir()):  # perhaps lists that would be overwritten
            raise UserError(f"{output} isn't empty: choose another --output") from None
        manifest.write_text(json.dumps(wanted, indent=2) + "\n")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{manifest}: damaged ({error}); choose another --output") from error
    else:
        if differing:
            key = differing[0]
            raise UserError(
                f"{output} holds videos made with {key} {found.get(key)}, not {wanted[key]}: "
                "choose another --output"
            )


def sweep(output: Path) -> None:
    """Removes what an interrupted run left half done."""
    for partial in output.rglob(temporary_of(Path(f"*{SUFFIX}")).name):
        partial.unlink(missing_ok=True)


def run(jobs: Sequence[Job], settings: TranscodeSettings, workers: int) -> dict[Job, Outcome]:
    """Prepares what isn't prepared yet; returns an outcome for every job, in their order."""
    outcomes = {job: Outcome(skipped=True) for job in jobs}
    todo = [job for job in jobs if not is_done(job)]
    for folder in {Path(job.target).parent for job in todo}:
        folder.mkdir(parents=True, exist_ok=True)
    prepare = Prepare(settings)
    with (
        tqdm(total=len(jobs), initial=len(jobs) - len(todo), unit="video", disable=None) as bar,
        closing(in_processes(prepare, todo, workers, prepare.crashed)) as results,
    ):
        for job, outcome in results:
            outcomes[job] = outcome
            bar.update()
    return outcomes


def is_done(job: Job) -> bool:
    """Tells whether the target is there, and newer than its source if that is still there."""
    source, target = Path(job.source), Path(job.target)
    if not target.is_file():
        return False
    return not source.exists() or source.stat().st_mtime_ns <= target.stat().st_mtime_ns


def summarise(outcomes: Mapping[Job, Outcome], output: Path) -> None:
    """Prints what was done, and writes down what failed."""
    failed = [(job.source, outcome.failure) for job, outcome in outcomes.items() if outcome.failure]
    good = [job for job, outcome in outcomes.items() if not outcome.failure]
    skipped = sum(outcome.skipped for outcome in outcomes.values())
    before = sum(size_of(Path(job.source)) for job in good)
    after = sum(size_of(Path(job.target)) for job in good)
    print(
        f"{output}: {len(good) - skipped:,} videos prepared, {skipped:,} were there, "
        f"{len(failed):,} failed; {before / 1e6:,.1f} MB became {after / 1e6:,.1f} MB"
    )
    path = output / "failed.csv"
    if not failed:
        path.unlink(missing_ok=True)
        return
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows([("path", "reason"), *failed])
    print(f"{path} says which and why; the lists are without them")


def size_of(path: Path) -> int:
    """Bytes of a file, of the files in a folder, or 0 if it isn't there."""
    if path.is_dir():
        return sum(entry.stat().st_size for entry in os.scandir(path))
    return path.stat().st_size if path.is_file() else 0


def write_names(path: Path, names: Sequence[str]) -> None:
    """Writes class names, a line each, as DATA.CLASS_NAMES reads them."""
    if names:
        path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def how_to_train(dataset: VideoDataset, output: Path) -> str:
    """Says which keys make a recipe use the prepared videos."""
    lists = f"DATA.PATH_TO_DATA_DIR {output}"
    if isinstance(dataset, Synthetic):
        return f"train with {lists}"
    if isinstance(dataset, Kinetics):
        return f"train with {lists} DATA.PATH_PREFIX {output}"
    if isinstance(dataset, VideoFolder):  # by itself it would split anew, as names have changed
        return (
            f"train with TRAIN.DATASET kinetics TEST.DATASET kinetics {lists} "
            f"DATA.PATH_PREFIX {output} DATA.CLASS_NAMES {output / NAMES}"
        )
    if isinstance(dataset.records, Records) and dataset.records.source.endswith(".csv"):
        return f"train with DATA.PATH_PREFIX {output} and .json annotations, not frame lists"
    return f"train with DATA.PATH_PREFIX {output}, annotations as they are"


if __name__ == "__main__":
    run_tool(main)
