"""Videos into shards: their copies, or the files as they are."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from timesformer.datasets.video.frame_folder import images_in
from timesformer.datasets.video.shards import UNFINISHED
from timesformer.prepare.claim import claim
from timesformer.prepare.copies import FORMAT, Job, Outcome, Prepare, Source, is_done
from timesformer.prepare.copies import MANIFEST as SETTINGS
from timesformer.prepare.packing import Limit, Packer
from timesformer.prepare.transcode import TranscodeSettings
from timesformer.utils.errors import UserError, VideoError
from timesformer.utils.files import is_folder
from timesformer.utils.processes import in_processes

Files = list[tuple[Path, str]]  # of a video: where each is, and its name in the shard


def plan_as_they_are(sources: Iterable[Source], base: Path, output: Path) -> list[Job]:
    """Give each file or folder of frames its own name in the shards; a folder goes there whole."""
    paths = dict.fromkeys(source.path for source in sources)
    base = base.absolute()
    return [Job(path, str(output / Path(path).absolute().relative_to(base))) for path in paths]


def make_shards(
    jobs: Sequence[Job],
    output: Path,
    shards: str,
    settings: TranscodeSettings | None,
    workers: int = 0,
) -> dict[Job, Outcome]:
    """Put into shards what isn't there yet.

    Args:
        jobs: what `plan` or `plan_as_they_are` returned; a member is named after its target.
        output: the folder of the shards; it remembers the settings.
        shards: their number or size, as --shards has it.
        settings: how to make copies; None to take the files as they are.
        workers: processes that make copies; 0: none but this one.

    Returns:
        An outcome for every job, in their order.

    Raises:
        UserError: the folder has something else in it, or can't be written; or a source isn't
            what it was when it came into a shard.
        ShardsError: one of the shards that were finished is missing.
    """
    limit = Limit.of(shards, len(jobs))
    made_with: dict[str, Any] = {"as_is": True} if settings is None else asdict(settings)
    claim(output / SETTINGS, {"format": FORMAT, **made_with, "shards": shards})
    outcomes = {job: Outcome(skipped=True) for job in jobs}
    with Packer(output, limit) as packer:
        todo = [job for job in jobs if not _is_packed(job, packer, output, settings is None)]
        copies = _as_they_are(todo, output)
        if settings is not None:
            copies = _copies(todo, output, settings, workers)
        bar = tqdm(total=len(jobs), initial=len(jobs) - len(todo), unit="video", disable=None)
        with bar, closing(copies):
            for job, outcome, files in copies:
                outcomes[job] = outcome if outcome.failure else _pack(packer, files, settings)
                bar.update()
        packer.finish()
    return outcomes


def _pack(packer: Packer, files: Files, settings: TranscodeSettings | None) -> Outcome:
    try:
        packer.add(files, spent=settings is not None)
    except VideoError as error:
        return Outcome(error.reason if len(files) == 1 else str(error))
    return Outcome()


def _copies(
    jobs: Sequence[Job], output: Path, settings: TranscodeSettings, workers: int
) -> Generator[tuple[Job, Outcome, Files], None, None]:
    """Make the copies that aren't there, and yield all of them in the order of the jobs.

    So the shards of a list are the same ones whatever the workers; some copies wait for a slow one.
    """
    staged = {job: _staged(job, output) for job in jobs}
    by_copy = {copy: job for job, copy in staged.items()}
    outcomes = {job: Outcome(skipped=True) for job, copy in staged.items() if is_done(copy)}
    todo = [copy for job, copy in staged.items() if job not in outcomes]
    for folder in {Path(copy.target).parent for copy in todo}:
        folder.mkdir(parents=True, exist_ok=True)
    prepare, waiting = Prepare(settings), deque(jobs)
    with closing(in_processes(prepare, todo, workers, prepare.crashed)) as results:
        while waiting:
            while waiting[0] not in outcomes:
                copy, outcome = next(results)
                outcomes[by_copy[copy]] = outcome
            job = waiting.popleft()
            name = Path(job.target).relative_to(output).as_posix()
            yield job, outcomes.pop(job), [(Path(staged[job].target), name)]


def _staged(job: Job, output: Path) -> Job:
    place = output / UNFINISHED / "videos" / Path(job.target).relative_to(output)
    return job._replace(target=str(place))


def _as_they_are(
    jobs: Sequence[Job], output: Path
) -> Generator[tuple[Job, Outcome, Files], None, None]:
    for job in jobs:
        try:
            yield job, Outcome(), _files(job, output)
        except VideoError as error:
            yield job, Outcome(error.reason), []


def _files(job: Job, output: Path) -> Files:
    """Return the files of a job that are taken as they are."""
    name = Path(job.target).relative_to(output).as_posix()
    if not is_folder(job.source):
        return [(Path(job.source), name)]
    return [(Path(job.source) / image, f"{name}/{image}") for image in images_in(job.source)]


def _is_packed(job: Job, packer: Packer, output: Path, as_it_is: bool) -> bool:
    """Tell whether a complete shard has a job's files.

    Raises:
        UserError: it has others, from before they were changed.
    """
    name = Path(job.target).relative_to(output).as_posix()
    try:
        files = _files(job, output) if as_it_is else [(Path(job.source), name)]
    except VideoError:  # told when it is read
        return False
    times = [packer.time_of(name) for _, name in files]
    if all(time is None for time in times):
        return False
    for (path, _), time in zip(files, times, strict=True):
        if time != _time(path, otherwise=time):
            raise UserError(
                f"{path} was changed after it was put into a shard of {output}, which are written "
                "once: choose another --output"
            )
    return True


def _time(path: Path, otherwise: int | None) -> int | None:
    """Return when a file was written, as a tar says it; `otherwise` if it isn't there any more."""
    try:
        return max(0, path.stat().st_mtime_ns // 10**9)
    except OSError:
        return otherwise
