"""What is written of features: of each model its own numbers, of each video its own words."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from timesformer.datasets.lists.records import Records
from timesformer.embed.features import Features
from timesformer.embed.report import in_view, write_report
from timesformer.embed.sources import Videos
from timesformer.utils.errors import UserError

VIDEOS = 12


def features(dimensions: int, width: int = 20) -> Features:
    """Of videos that differ in so many directions; every second video is broken or damaged."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(VIDEOS, dimensions)) @ rng.normal(size=(dimensions, width))
    with io.BytesIO() as file:
        Image.new("RGB", (8, 8)).save(file, format="JPEG")
        pictures = [file.getvalue()] * VIDEOS
    damage = ["cut short" if i == 4 else "" for i in range(VIDEOS)]
    return Features(rows.astype(np.float32), np.arange(VIDEOS), pictures, damage, [])


def test_each_panel_has_its_own_share_of_the_variance(tmp_path: Path) -> None:
    records = Records()
    for i in range(2 * VIDEOS):
        records.append(f"videos/{i}.mp4", i % 2)
    kept = np.arange(0, 2 * VIDEOS, 2)
    models = {"flat": features(2), "deep": features(VIDEOS)}
    write_report(tmp_path, models, Videos(records, (), "some"), kept, "pca")
    page = (tmp_path / "index.html").read_text()
    data = json.loads(re.findall(r'<script id="data"[^>]*>(.*?)</script>', page)[0])
    shares = [re.findall(r"20 features · (\d+) % of the variance", " ".join(p["lines"]))
              for p in data["panels"]]  # fmt: skip
    assert shares[0] == ["100"]
    assert 20 < int(shares[1][0]) < 70
    assert "<p>PCA; " in page  # what is said of all
    assert data["damage"] == ["cut short" if i == 4 else "" for i in range(VIDEOS)]
    assert data["paths"] == [f"videos/{i}.mp4" for i in kept]


def test_models_that_see_nothing_are_told_from_those_that_do() -> None:
    """Who read no video takes no others from the rest; whoever says the same of all is out too."""
    seeing, none = features(3), np.empty(0, np.int64)
    unread, same = seeing.of(none), features(0)
    found, kept, blind = in_view({"a": seeing, "b": unread, "c": same}, VIDEOS)
    assert ([*found], kept.tolist()) == (["a"], [*range(VIDEOS)])
    assert blind["b"] == "none of 12 videos can be read"
    assert blind["c"].startswith("all videos have the same features")
    assert in_view({"b": unread}, VIDEOS)[0] == {}
    halves = {"a": seeing.of(np.arange(6)), "b": seeing.of(np.arange(6, VIDEOS))}
    with pytest.raises(UserError, match="no video that a and b can all read"):
        in_view(halves, VIDEOS)
