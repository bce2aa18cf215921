"""Runs that train a part of a model: steps, checkpoints, going on, and what reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import RECIPE, small_cfg, small_options, stats

from timesformer.commands.convert import main as convert
from timesformer.commands.run import run
from timesformer.engine.train import train
from timesformer.models.create import from_pretrained
from timesformer.models.lora import is_added
from timesformer.utils.checkpoint import get_last_checkpoint, read_checkpoint
from timesformer.utils.errors import ConfigError
from timesformer.utils.parser import load_config, parse_args

ONE = {"SOLVER__MAX_EPOCH": 1, "SOLVER__WARMUP_EPOCHS": 0.0, "TEST__ENABLE": False}
HEAD = {"TRAIN__FREEZE": "*, !head"}
LORA = {"TRAIN__FREEZE": "*, !temporal_fc, !head", "LORA__RANK": 2}


def last(folder: Path) -> dict[str, Any]:
    path = get_last_checkpoint(folder)
    assert path
    return dict(read_checkpoint(path))


@pytest.mark.parametrize("options", [HEAD, LORA], ids=["head", "lora"])
def test_a_cut_run_goes_on_bit_for_bit(synthetic_dir, tmp_path, options):
    options = options | {"EMA__ENABLED": True, "TEST__ENABLE": False, "TRAIN__EVAL_PERIOD": 0}
    straight, cut = (small_cfg(synthetic_dir, tmp_path / name, **options) for name in "ab")
    train(straight)
    train(small_cfg(synthetic_dir, tmp_path / "b", **options), steps=4)  # of 3 an epoch
    train(cut)
    a, b = (last(tmp_path / name) for name in "ab")
    for part in ("model_state", "ema_state"):
        assert all(torch.equal(value, b[part][name]) for name, value in a[part].items())
    kept = a["optimizer_state"]["state"]
    (start,) = stats(tmp_path / "a", "start")
    assert sum(row["exp_avg"].numel() for row in kept.values()) == start["trained_params"]
    assert start["trained_params"] < start["params"] / 2


def test_a_3d_cnn_trains_and_what_is_frozen_of_it_stays(synthetic_dir, tmp_path):
    """Weights, statistics of BatchNorm and its counters, of the model and of its average."""
    options = small_options(synthetic_dir, tmp_path, **ONE, TRAIN__EVAL_PERIOD=0, CNN__WIDTH=0.0625)
    options += ["TRAIN.FREEZE", "*, !s5, !head", "EMA.ENABLED", "True", "DATA.NUM_FRAMES", "8"]
    pairs = [*zip(options[::2], options[1::2], strict=True)]
    words = [word for pair in pairs if not pair[0].startswith("TIMESFORMER.") for word in pair]
    cfg = load_config(parse_args(["--cfg", str(RECIPE.parent / "I3D_narrow_8_64.yaml"), *words]))
    train(cfg)
    content = last(tmp_path)
    for part in ("model_state", "ema_state"):
        frozen = {n: v for n, v in content[part].items() if not n.startswith(("s5", "head"))}
        counters = [n for n in frozen if n.endswith("num_batches_tracked")]
        means = [v for n, v in frozen.items() if n.endswith("running_mean")]
        assert counters
        assert not any(map(content[part].get, counters))
        assert means
        assert not any(bool(mean.any()) for mean in means)
    tracked = [v for n, v in content["model_state"].items() if n.startswith("s5") and not v.ndim]
    assert {int(count) for count in tracked} == {3}


def test_another_choice_is_another_run(synthetic_dir, tmp_path):
    train(small_cfg(synthetic_dir, tmp_path, **ONE, **HEAD))
    with pytest.raises(ConfigError, match=r"TRAIN\.FREEZE: .*→"):
        train(small_cfg(synthetic_dir, tmp_path, **ONE, TRAIN__FREEZE="*, !norm, !head"))


def test_what_a_checkpoint_would_overrule_is_refused(synthetic_dir, tmp_path, capsys):
    """TRAIN.RESUME_ANYWAY would leave the factor as it was, and give moments to other weights."""
    freeze = {"TRAIN__FREEZE": "*, !blocks.0.temporal_fc"}
    train(small_cfg(synthetic_dir, tmp_path, **ONE, **freeze, LORA__RANK=2))
    assert "are frozen at random, as no weights were read for them" in capsys.readouterr().out
    more = ONE | {"SOLVER__MAX_EPOCH": 2, "TRAIN__RESUME_ANYWAY": True, "LORA__RANK": 2}
    with pytest.raises(ConfigError, match=r"for LORA\.ALPHA 16\.0, not 8\.0: set it back"):
        train(small_cfg(synthetic_dir, tmp_path, **more, **freeze, LORA__ALPHA=8.0))
    other = {"TRAIN__FREEZE": "*, !blocks.1.temporal_fc"}
    with pytest.raises(ConfigError, match=r"other parameters than those that TRAIN\.FREEZE"):
        train(small_cfg(synthetic_dir, tmp_path, **more, **other))
    respelt = {"TRAIN__FREEZE": "*,!blocks.0.temporal_fc"}
    train(small_cfg(synthetic_dir, tmp_path, **more, **respelt))


def test_lora_needs_to_know_what_stays(synthetic_dir, tmp_path):
    with pytest.raises(ConfigError, match=r"LORA\.RANK 2 .*TRAIN\.FREEZE"):
        small_cfg(synthetic_dir, tmp_path, LORA__RANK=2)


def test_lora_is_merged_for_whoever_reads(synthetic_dir, tmp_path):
    """Tested, converted and started from: each gets one matrix a layer."""
    folder = tmp_path / "run"
    options = {"SOLVER__MAX_EPOCH": 1, "SOLVER__WARMUP_EPOCHS": 0.0, "SOLVER__BASE_LR": 0.05}
    cfg = small_cfg(synthetic_dir, folder, **options, **LORA)
    trained = train(cfg).eval()
    cfg.TRAIN.ENABLE = False
    run(cfg)
    assert any(map(is_added, last(folder)["model_state"]))
    clip = torch.randn(1, 3, 4, 64, 64)
    for source in (folder, tmp_path / "saved", tmp_path / "converted.pyth"):
        if source.name == "saved":
            trained.save_pretrained(source)
        elif source.name == "converted.pyth":
            convert([str(folder), str(source), "--to", "native"])
        model = from_pretrained(source)
        assert not any(map(is_added, model.state_dict()))
        torch.testing.assert_close(model(clip), trained(clip), atol=1e-5, rtol=1e-5)
    # The next run begins at the merged weights, with additions of its own at zero.
    options = {"TRAIN__CHECKPOINT_FILE_PATH": str(get_last_checkpoint(folder))}
    options |= {"TRAIN__CHECKPOINT_EPOCH_RESET": True, "SOLVER__BASE_LR": 1e-9}
    options |= {"SOLVER__WARMUP_START_LR": 0.0, "SOLVER__WEIGHT_DECAY": 0.0}
    again = train(small_cfg(synthetic_dir, tmp_path / "next", **ONE | options, **LORA)).eval()
    torch.testing.assert_close(again(clip), trained(clip), atol=1e-4, rtol=1e-4)
