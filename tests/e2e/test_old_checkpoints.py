"""Checkpoints that earlier versions wrote, without an architecture: they load, test and resume.

tests/data/old_checkpoints has one of a divided model, one of a model whose size is in its name
alone, and one that isn't a ViT by its names; expected.json has what they gave in the version that
wrote them: logits, the losses of the next epoch, the scores after it.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_run import small_cfg, stats

from timesformer.engine.evaluate import test as run_test
from timesformer.engine.train import train
from timesformer.models.create import from_pretrained
from timesformer.utils.torch_file import read_checkpoint

SIDE: dict[str, Any] = {
    "DATA__TRAIN_CROP_SIZE": 32,
    "DATA__TEST_CROP_SIZE": 32,
    "DATA__TRAIN_JITTER_SCALES": [32, 36],
}
STEADY: dict[str, Any] = SIDE | {
    "SOLVER__MOMENTUM": 0.0,
    "SOLVER__NESTEROV": False,
    "SOLVER__OPTIMIZING_METHOD": "sgd",
    "SOLVER__BASE_LR": 0.01,
    "SOLVER__WARMUP_EPOCHS": 0,
    "SOLVER__LR_POLICY": "steps_with_relative_lrs",
    "SOLVER__STEPS": [0, 1],
    "SOLVER__LRS": [0.0, 1.0],
    "TIMESFORMER__INIT": "image",
}
TINY = {"TIMESFORMER__EMBED_DIM": 12, "TIMESFORMER__DEPTH": 1}
CASES: dict[str, dict[str, Any]] = {
    "divided": SIDE | TINY,
    "vit_tiny": STEADY
    | {
        "MODEL__MODEL_NAME": "vit_tiny_patch16_224",
        "TIMESFORMER__EMBED_DIM": 768,
        "TIMESFORMER__DEPTH": 12,
        "TIMESFORMER__NUM_HEADS": 12,
    },
    "factorised_encoder": STEADY
    | TINY
    | {"MODEL__MODEL_NAME": "vivit_factorised_encoder", "TIMESFORMER__TUBELET_SIZE": 2},
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, golden: Path, tmp_path: Path):
    """Name, checkpoint in a run's folder, what it must give."""
    name, folder = request.param, golden / "old_checkpoints"
    checkpoint = tmp_path / "run" / "checkpoints" / "checkpoint_epoch_00001.pyth"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(lzma.decompress((folder / f"{name}.pyth.xz").read_bytes()))
    return name, checkpoint, json.loads((folder / "expected.json").read_text())[name]


def test_loads_as_the_same_model(case) -> None:
    name, checkpoint, expected = case
    assert "architecture" not in read_checkpoint(checkpoint)
    model = from_pretrained(checkpoint)
    if name == "vit_tiny":  # its config says ViT-B's 12 heads
        assert model.architecture.num_heads == model.model.blocks[0].attn.num_heads == 3
    side = model.architecture.img_size
    rng = np.random.default_rng(5)
    clip = torch.from_numpy(rng.standard_normal((2, 3, 4, side, side), dtype=np.float32))
    with torch.no_grad():
        np.testing.assert_allclose(model(clip), expected["logits"], atol=1e-4)


def test_resumes_and_tests_as_before(case, synthetic_dir) -> None:
    name, checkpoint, expected = case
    run = checkpoint.parents[1]
    cfg = small_cfg(synthetic_dir, run, **CASES[name])
    train(cfg)
    losses = [line["loss"] for line in stats(run, "train_iter")]
    # Other processors and numbers of threads round otherwise, and every step makes more of it.
    assert losses[0] == pytest.approx(expected["losses"][0], abs=1e-4)
    assert losses == pytest.approx(expected["losses"], abs=5e-3)
    scores, wanted = run_test(cfg).scores.numpy(), np.array(expected["scores"])
    limit = 0.2 if name == "vit_tiny" else 1e-3  # twelve blocks at this rate: rounding grows
    assert np.linalg.norm(scores - wanted) < limit * np.linalg.norm(wanted)
    written = read_checkpoint(checkpoint.with_name("checkpoint_epoch_00002.pyth"))
    assert written["architecture"] == from_pretrained(checkpoint).architecture.to_json()
