"""`timesformer probe`: a head on features that are computed once, in a model that others take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small_run import complaint_of, small_cfg, small_model, stats

from timesformer.commands.probe import main
from timesformer.commands.run import run
from timesformer.embed.probe import accuracy, fit_head
from timesformer.inference.load import load_models
from timesformer.models.weights.save import save_pretrained
from timesformer.utils.errors import UserError


def test_a_head_on_features_that_are_computed_once(
    synthetic_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, out = tmp_path / "base", tmp_path / "probe"
    save_pretrained(small_model(synthetic_dir, tmp_path / "run"), base)
    words = [str(synthetic_dir), "--checkpoint", str(base), "--out", str(out), "--workers", "0"]
    main([*words, "--strength", "1e6"])
    said = capsys.readouterr().out
    assert "train: 24 videos, 0 of them from the cache" in said
    assert "train: 100.0 % of 24 videos" in said  # as many features as videos
    main(words)
    said = capsys.readouterr().out
    assert "val: 6 videos, 6 of them from the cache" in said
    before, after = load_models([base, out / "model"])
    assert len(after.class_names) == 6
    new = after.state_dict()
    changed = [name for name, w in before.state_dict().items() if not torch.equal(w, new[name])]
    assert changed == ["model.head.weight", "model.head.bias"]
    cfg = small_cfg(synthetic_dir, tmp_path / "test", TRAIN__ENABLE=False)
    cfg.TEST.CHECKPOINT_FILE_PATH = str(out / "model")
    run(cfg)
    assert len(stats(tmp_path / "test", "test_final")) == 1


@pytest.mark.parametrize("classes", [2, 3])
def test_the_head_is_the_regression(classes: int) -> None:
    """It is for features as they come, and a class without videos is never said."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 200)
    features = (rng.normal(size=(200, 4)) + 3 * labels[:, None]) * [1, 10, 0.1, 1] + 7
    weight, bias = fit_head(features, labels, classes + 1, 1.0)
    assert weight.shape == (classes + 1, 4)
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, labels)
    found = (torch.from_numpy(features).float() @ weight.T + bias).softmax(1)
    expected = torch.from_numpy(fitted.predict_proba(features)).float()
    torch.testing.assert_close(found[:, :classes], expected, atol=1e-4, rtol=0)
    assert accuracy(features, labels, weight, bias) == fitted.score(features, labels) > 0.95
    with pytest.raises(UserError, match="one class"):
        fit_head(features, labels * 0, classes, 1.0)


def test_what_cannot_be(synthetic_dir: Path, tmp_path: Path) -> None:
    rest = ["--checkpoint", "a.pth", "--out", tmp_path / "out"]
    assert "no such folder" in complaint_of(main, tmp_path / "none", *rest)
    (tmp_path / "train.csv").write_text(f"{synthetic_dir}/a.mp4 0\n")
    assert "val.csv" in complaint_of(main, tmp_path, *rest)
    assert "--strength" in complaint_of(main, tmp_path, *rest, "--strength", 0)
