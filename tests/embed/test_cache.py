"""What has been computed isn't again, and nothing else is taken for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import small_cfg, small_model

from timesformer.datasets.build import build_video_split
from timesformer.datasets.lists.records import Records
from timesformer.datasets.video.reader import VideoReader
from timesformer.embed import cache
from timesformer.embed.cache import cached_features
from timesformer.models.base import VideoModel


@pytest.fixture
def model(synthetic_dir: Path, tmp_path: Path) -> VideoModel:
    return small_model(synthetic_dir, tmp_path)


@pytest.fixture
def records(synthetic_dir: Path, tmp_path: Path) -> Records:
    found = build_video_split(small_cfg(synthetic_dir, tmp_path), "test").records
    assert isinstance(found, Records)
    return found.take(range(6))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of videos that are decoded from here on."""
    seen: list[str] = []
    read = VideoReader.__call__

    def counting(self: VideoReader, path: str, *args: object) -> object:
        seen.append(path)
        return read(self, path, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(VideoReader, "__call__", counting)
    return seen


def test_a_second_time_nothing_is_decoded(
    model: VideoModel, records: Records, tmp_path: Path, decoded: list[str]
) -> None:
    first, known = cached_features(model, records, tmp_path / "x.npz")
    assert (len(decoded), known) == (6, 0)
    order = [5, 0, 3]
    again, known = cached_features(model, records.take(order), tmp_path / "x.npz")
    assert (len(decoded), known) == (6, 3)
    assert (again.features == first.features[order]).all()
    assert again.thumbnails == [first.thumbnails[i] for i in order]
    assert again.damage == first.damage[:3] == ["", "", ""]


def test_what_is_new_is_added(
    model: VideoModel, records: Records, tmp_path: Path, decoded: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(cache, "CHUNK", 2)
    expected, _ = cached_features(model, records, tmp_path / "whole.npz")
    cached_features(model, records.take([1, 4]), tmp_path / "x.npz")
    decoded.clear()
    found, known = cached_features(model, records, tmp_path / "x.npz")
    assert (sorted(decoded), known) == (sorted(records[i].path for i in (0, 2, 3, 5)), 2)
    np.testing.assert_allclose(found.features, expected.features, atol=1e-6)
    assert found.index.tolist() == [*range(6)]
    assert found.thumbnails == expected.thumbnails


def weights(model: VideoModel, path: Path, records: Records) -> None:
    with torch.no_grad():
        model.model.norm.bias += 1


def preprocessing(model: VideoModel, path: Path, records: Records) -> None:
    model.preprocessing["crop_size"] = 48


def damaged(model: VideoModel, path: Path, records: Records) -> None:
    content = bytearray(path.read_bytes())
    at = content.index(b"features.npy") + 300
    content[at] ^= 1
    path.write_bytes(content)


def foreign(model: VideoModel, path: Path, records: Records) -> None:
    np.savez(path, x=np.zeros(3))


def cut_short(model: VideoModel, path: Path, records: Records) -> None:
    path.write_bytes(path.read_bytes()[:-400])


def emptied(model: VideoModel, path: Path, records: Records) -> None:
    path.write_bytes(b"")


def one_array(model: VideoModel, path: Path, records: Records) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def header(old: bytes, new: bytes) -> Callable[[VideoModel, Path, Records], None]:
    def change(model: VideoModel, path: Path, records: Records) -> None:
        content = path.read_bytes()
        at = content.rindex(old)
        path.write_bytes(content[:at] + new + content[at + len(old) :])

    return change


DAMAGES = (
    *(damaged, foreign, cut_short, emptied, one_array),
    # In zip's directory: another version, and a way of packing that nobody has.
    *(header(b"PK\x01\x02\x2d\x03\x2d", b"PK\x01\x02\x2d\x03\xff"),),
)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (weights, "computed again: other weights"),
        (preprocessing, "computed again: other preprocessing"),
        *((change, "damaged, or not one of features") for change in DAMAGES),
    ],
)
def test_what_isnt_the_same_is_computed_again(
    model: VideoModel, records: Records, tmp_path: Path, decoded: list[str],
    caplog: pytest.LogCaptureFixture, change: Callable[..., None], said: str,
) -> None:  # fmt: skip
    path, records = tmp_path / "x.npz", records.take([0, 1])
    before, _ = cached_features(model, records, path)
    assert not caplog.messages
    change(model, path, records)
    after, known = cached_features(model, records, path)
    assert (len(decoded), known) == (4, 0)
    assert said in caplog.text
    same = np.allclose(after.features, before.features, atol=1e-6)
    assert same == (change not in (weights, preprocessing))


def test_a_video_that_has_changed_and_one_that_is_mended(
    model: VideoModel, records: Records, tmp_path: Path
) -> None:
    mine = Records()
    for i in range(2):
        (tmp_path / f"{i}.mp4").write_bytes(Path(records[i].path).read_bytes())
        mine.append(str(tmp_path / f"{i}.mp4"), 0)
    (tmp_path / "1.mp4").write_bytes(b"no video")
    found, _ = cached_features(model, mine, tmp_path / "x.npz")
    assert [problem.record for problem in found.failed] == [1]
    (tmp_path / "1.mp4").write_bytes(Path(records[1].path).read_bytes())
    assert len(cached_features(model, mine, tmp_path / "x.npz")[0].index) == 2
    (tmp_path / "0.mp4").write_bytes(Path(records[2].path).read_bytes())
    os.utime(tmp_path / "0.mp4", ns=(1, 1))
    again, known = cached_features(model, mine, tmp_path / "x.npz")
    assert known == 1
    assert not np.allclose(again.features[0], found.features[0], atol=1e-6)
