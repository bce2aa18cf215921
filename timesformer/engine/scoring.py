"""Scores on their way from the model to a table: each rank has a row for each of its videos.

Every score is filed under its (video, view) index: order, batching and the number of ranks can't
change a result, and a view that is missing or scored twice is an error.

Letters: V videos, n views of each, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from timesformer.clips.ensemble import ensemble
from timesformer.datasets.loader import VideoLoader
from timesformer.engine.broken import BrokenVideos
from timesformer.utils.checkpoint import bare
from timesformer.utils.distributed import gather_objects, gather_on_main, is_main, together
from timesformer.utils.errors import TrainingError
from timesformer.utils.logging import progress
from timesformer.utils.precision import autocast
from timesformer.utils.stopping import asked, stopped
from timesformer.utils.watchdog import doing


class Table(NamedTuple):
    """Scores of all videos; NaN where one can't be read.

    Attributes:
        scores: (V, K).
        per_view: (V, n, K), or None where views weren't kept.
    """

    scores: Tensor
    per_view: Tensor | None


class SideBySide(nn.Module):
    """Several models that score the same clips: (B, 3, T, H, W) to (B, K) of each, in a row."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, clips: Tensor) -> Tensor:
        """Score clips."""
        return torch.cat([model(clips).float() for model in self.models], 1)


@torch.no_grad()
def score_videos(
    model: nn.Module,
    loader: VideoLoader,
    device: torch.device,
    broken: BrokenVideos,
    *,
    num_classes: int,
    clips: int,
    method: str = "sum",
    keep_views: bool = True,
    amp: str = "none",
    desc: str = "test",
) -> Table | None:
    """Score every view of every video, each rank its share.

    A rank keeps a row for each of its videos, and the main process gathers them: memory doesn't
    grow with the number of views, unless they are to be kept, nor does anything lie on the device.
    A video that can't be read gets NaN, and never the scores of another one.

    Args:
        model: maps clips (B, 3, T, H, W) to (B, K).
        loader: evaluation loader of this rank.
        device: where the model lives.
        broken: lists videos that can't be read.
        num_classes: K.
        clips: clips in one forward pass.
        method: how views make a video's score, see `ensemble`.
        keep_views: keep the scores of every view too.
        amp: see `autocast`.
        desc: name on the progress bar.

    Returns:
        The scores, in the main process; None in the others.

    Raises:
        TrainingError: if a view was not scored exactly once, or no video can be read.
        Stopped: a signal asked for it.
    """
    model = bare(model).eval()
    dataset = loader.dataset
    several = isinstance(dataset.records[0].label, tuple)
    shape = (len(dataset), dataset.num_views, num_classes)
    rows = Rows(shape, method, several, keep_views)
    doing(desc)
    batches = progress(loader, desc=desc, total=len(loader))
    for i, (pixels, _, index, meta) in enumerate(batches):
        if asked():
            break
        broken.add(meta["problems"])
        if not len(index):
            continue
        with autocast(device, amp):
            parts = []
            for x in pixels.split(clips):
                # By another name than in training, where other code is compiled by then.
                doing("forward pass of an evaluation", f"{desc}, batch {i + 1}")
                parts.append(model(dataset.normalize(x.to(device, non_blocking=True))).float())
        rows.add(index, meta["view"], torch.cat(parts).cpu())
        doing("wait for videos", f"{desc}, batch {i + 2}")
    doing("exchange of all ranks", desc)
    if any(gather_objects(bool(asked()))):
        raise stopped(f"{desc} was cut short: the same command takes it up again")
    broken.gather()
    broken.require_some()
    # The main process has a place for every video: it fills in those of the others.
    ranks = gather_on_main(None if is_main() else rows.found())

    def name(video: int) -> str:
        return dataset.records[video].path

    others = [found for found in ranks or () if found]
    return together(lambda: rows.joined(others, broken.failed, name) if is_main() else None)


class Rows:
    """The videos of one rank, added batch by batch; a batch has all views of its videos.

    Rows lie in one block from the start: as small tensors they would keep the memory of batches
    from being used again, which is between them.

    Args:
        shape: (V, n, K).
        method: how views make a video's score, see `ensemble`.
        several: whether videos have several labels.
        keep_views: keep the scores of every view too.
    """

    def __init__(
        self, shape: tuple[int, int, int], method: str, several: bool, keep_views: bool
    ) -> None:
        V, n, K = shape
        self.views = n
        self.method = method
        self.several = several
        self.times = torch.zeros(V, dtype=torch.long)
        self.scores = torch.full((V, K), torch.nan)
        self.per_view = torch.full(shape, torch.nan) if keep_views else None
        self.wrong: list[tuple[int, int, int]] = []  # video, view, times

    def add(self, index: Tensor, view: Tensor, scores: Tensor) -> None:
        """Add a batch: scores (B, K) of these views of these videos, both (B,)."""
        for video in dict.fromkeys(index.tolist()):
            mine = index == video
            times = torch.bincount(view[mine], minlength=self.views)
            if not bool((times == 1).all()):
                first = int((times != 1).nonzero()[0])
                self.wrong.append((video, first, int(times[first])))
                continue
            per_view = scores[mine][view[mine].argsort()]
            self.times[video] += 1
            self.scores[video] = ensemble(per_view[None], self.method, self.several)[0]
            if self.per_view is not None:
                self.per_view[video] = per_view

    def found(self) -> Found:
        """Return what this rank has found, without the places of other ranks' videos."""
        videos = self.times.nonzero()[:, 0]
        per_view = None if self.per_view is None else self.per_view[videos]
        return Found(videos, self.times[videos], self.scores[videos], per_view, self.wrong)

    def joined(
        self,
        others: Sequence[Found],
        failed: Sequence[int],
        name: Callable[[int], str] = "video {}".format,
    ) -> Table:
        """Make one table of these rows and those of the other ranks, in the memory of these.

        Args:
            others: the rows of each other rank.
            failed: videos that couldn't be read.
            name: what a video is called in a message.

        Raises:
            TrainingError: a video isn't there exactly once.
        """

        def not_once(video: int, view: int, times: int) -> TrainingError:
            return TrainingError(
                f"{name(video)}: view {view} was scored {times} times instead of once"
            )

        times = self.times.clone()
        times[list(failed)] += 1
        for wrong in (self.wrong, *(found.wrong for found in others)):
            if wrong:
                raise not_once(*wrong[0])
        for found in others:
            times[found.videos] += found.times
            self.scores[found.videos] = found.scores
            if self.per_view is not None and found.per_view is not None:
                self.per_view[found.videos] = found.per_view
        if not bool((times == 1).all()):
            video = int((times != 1).nonzero()[0])
            raise not_once(video, 0, int(times[video]))
        return Table(self.scores, self.per_view)


class Found(NamedTuple):
    """The rows of a rank, to be sent: videos (R,), how often each came, scores (R, K), views."""

    videos: Tensor
    times: Tensor
    scores: Tensor
    per_view: Tensor | None
    wrong: list[tuple[int, int, int]]
