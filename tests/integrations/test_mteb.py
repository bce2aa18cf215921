"""Embeddings that mteb gets are the features that `extract` writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_run import small_model
from torch.utils.data import DataLoader

from timesformer.clips.sampling import RateSampler
from timesformer.datasets.video.reader import VideoReader
from timesformer.inference.extract import extract
from timesformer.inference.features import read
from timesformer.inference.given import find
from timesformer.inference.load import load
from timesformer.integrations.mteb import VideoEncoder
from timesformer.utils.errors import UserError


@dataclass
class Decoder:
    """A file behind the little of torchcodec's VideoDecoder that is asked for."""

    path: str

    @property
    def metadata(self) -> SimpleNamespace:
        length, fps = VideoReader().length(self.path)
        return SimpleNamespace(num_frames=length, average_fps=fps)

    def get_frames_at(self, numbers: list[int]) -> SimpleNamespace:
        length = self.metadata.num_frames
        whole = VideoReader()(self.path, lambda *_: [RateSampler(length, 1).at(0.0, 30.0)])
        return SimpleNamespace(data=whole.frames[0][numbers].permute(0, 3, 1, 2))


@pytest.fixture(scope="module")
def encoder(synthetic_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> VideoEncoder:
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    small_model(synthetic_dir, folder / "run").save_pretrained(folder / "small")
    return VideoEncoder(load(folder / "small", device="cpu"))


@pytest.fixture(scope="module")
def paths(synthetic_dir: Path) -> list[str]:
    return [record.path for record in find([synthetic_dir / "test"])]


@pytest.mark.parametrize("workers", [0, 1])
def test_embeddings_are_what_extract_writes(
    encoder: VideoEncoder, paths: list[str], tmp_path: Path, workers: int
) -> None:
    rows: Any = [{"video": Decoder(path), "label": 1} for path in paths[:5]]
    found = encoder.encode(DataLoader(rows, batch_size=2, num_workers=workers), hf_split="test")
    extract(encoder._encoder.predictor, paths[:5], tmp_path)
    expected = np.stack([one.features for one in read(tmp_path)])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
    same, others = encoder.similarity_pairwise(found, expected), encoder.similarity(found, expected)
    assert same.tolist() == pytest.approx([1.0] * 5)
    assert others.diagonal().tolist() == pytest.approx(same.tolist())
    assert others.shape == (5, 5)
    assert others[0, 1] < 1


def test_rows_without_videos_are_refused(encoder: VideoEncoder) -> None:
    rows: Any = [{"text": "a dog"}]
    with pytest.raises(UserError, match="a row has no video"):
        encoder.encode(DataLoader(rows))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of what mteb imports
def test_a_task_of_mteb(
    encoder: VideoEncoder, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mteb = pytest.importorskip("mteb", reason="mteb isn't installed: the extra `mteb`")
    from datasets import Dataset, DatasetDict
    from mteb.abstasks import AbsTaskClassification
    from mteb.abstasks.task_metadata import TaskMetadata

    class Twelve(AbsTaskClassification):
        metadata = TaskMetadata(
            name="Twelve", description="-", reference=None, main_score="accuracy",
            dataset={"path": "made/up", "revision": "1"}, type="VideoClassification",
            category="v2c", modalities=["video"], eval_splits=["test"], eval_langs=["eng-Latn"],
            date=None, domains=None, task_subtypes=None, license=None, annotations_creators=None,
            dialect=None, sample_creation=None, bibtex_citation="",
        )  # fmt: skip
        input_column_name, label_column_name = "video", "label"
        samples_per_label, n_experiments = 6, 1

        def load_data(self, *_: Any, **__: Any) -> None:
            rows = {"video": paths, "label": [int(i < len(paths) // 2) for i in range(len(paths))]}
            decoding = Dataset.from_dict(rows).with_transform(decoded)
            self.dataset = DatasetDict({"train": decoding, "test": decoding})
            self.data_loaded = True

    assert isinstance(encoder, mteb.models.EncoderProtocol)
    rows: Any = [{"video": Decoder(path)} for path in paths]
    expected = encoder.encode(DataLoader(rows))
    seen: list[np.ndarray] = []
    encode = VideoEncoder.encode
    monkeypatch.setattr(
        VideoEncoder, "encode", lambda *args, **more: seen.append(encode(*args, **more)) or seen[-1]
    )
    results = mteb.evaluate(encoder, Twelve(), cache=None)
    [scores] = results.task_results[0].scores["test"]
    assert {"accuracy", "f1"} <= scores.keys()
    apart = np.abs(np.concatenate(seen)[:, None] - expected).max(axis=-1)
    assert (apart.min(axis=1) < 1e-5).all()
    assert (apart.min(axis=0) < 1e-5).all()
    assert encoder.mteb_model_meta.revision == results.model_revision


def decoded(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: [Decoder(v) for v in column] if name == "video" else column
            for name, column in rows.items()}  # fmt: skip
