"""A folder of files, put into shards as they are: `from shard_fixtures import pack`."""

from __future__ import annotations

from pathlib import Path

from timesformer.datasets.video.shards import Shards, open_shards
from timesformer.datasets.video.tree import videos_below
from timesformer.prepare.copies import Source
from timesformer.prepare.shards import make_shards, plan_as_they_are


def pack(folder: Path, output: Path, shards: str = "3") -> Shards:
    """Put the videos and folders of images of a folder into shards."""
    sources = [Source(path) for path in videos_below(folder, frames=True)]
    outcomes = make_shards(plan_as_they_are(sources, folder, output), output, shards, None)
    assert not any(outcome.failure for outcome in outcomes.values())
    found = open_shards(str(output))
    assert found is not None
    return found
