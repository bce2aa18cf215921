"""What copies would save: sizes are those of files, times are of the same clips of both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from dataset_layouts import write_pictures, write_tiny

from timesformer.clips.sampling import RateSampler
from timesformer.clips.training import TrainTransform
from timesformer.datasets.lists.records import Images, Record
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.prepare import savings
from timesformer.prepare.inspect import InspectOptions, SplitReport
from timesformer.prepare.savings import measure
from timesformer.prepare.transcode import TranscodeSettings


def report_of(records: list[Record], name: str = "train") -> SplitReport:
    transform = TrainTransform((32, 40), 32)
    data = VideoDataset(records, RateSampler(4, 4, 30.0), transform, "train", num_samples=2)
    look = InspectOptions()
    return SplitReport(name, data, [look(r.path, r.images) for r in records], 2)


def test_files_and_their_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write_tiny(tmp_path / f"{i}.mp4", 30 + 30 * i, seed=i) for i in range(4)]
    (tmp_path / "bad.mp4").write_text("no video")
    records = [Record(str(p), 0) for p in (*paths, tmp_path / "bad.mp4", paths[0])]
    read: list[tuple[str, ...]] = []
    sample = VideoDataset.__getitem__

    def noted(self: VideoDataset, key: tuple[int, int]):
        read.append(tuple(record.path for record in self.records))
        return sample(self, key)

    monkeypatch.setattr(VideoDataset, "__getitem__", noted)
    threads = torch.get_num_threads()
    found = measure([report_of(records)], 2, TranscodeSettings(short_side=32))
    assert found is not None
    assert (found.sampled, found.videos) == (2, 4)
    assert found.disk == sum(path.stat().st_size for path in paths)
    assert found.copy_disk > 0
    assert min(found.clip_ms, found.copy_ms, found.hours) > 0
    files, copies = read[0], read[1]
    assert files == (str(paths[0]), str(paths[2]))
    assert read == [files, copies] * 2 * (savings.ROUNDS + 1)
    assert not any(Path(path).exists() for path in copies)
    assert torch.get_num_threads() == threads


def test_of_folders_of_images_the_disk_space_is_estimated(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_pictures(tmp_path / name, 30)
    records = [Record(str(tmp_path / name), 0, images=Images(0, 15)) for name in ("a", "b")]
    found = measure([report_of(records)], 1, TranscodeSettings(short_side=32))
    assert found is not None
    half = sorted((tmp_path / "a").iterdir())[:15]
    assert found.disk == pytest.approx(2 * sum(path.stat().st_size for path in half))


def test_where_nothing_can_be_copied_nothing_is_said(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    records = [Record(str(tmp_path / "bad.mp4"), 0)]
    assert measure([report_of(records)], 2, TranscodeSettings()) is None
    monkeypatch.setattr(savings, "LONGEST", 0.5)
    records = [Record(str(write_tiny(tmp_path / "long.mp4", 60)), 0)]
    assert measure([report_of(records)], 2, TranscodeSettings()) is None
