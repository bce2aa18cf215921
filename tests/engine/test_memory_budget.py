"""Batches that fit into memory, and blocks that recompute: chosen by calculation."""

from __future__ import annotations

import logging
import weakref
from typing import Any

import pytest
import torch
from small_run import small_cfg, stats
from torch.multiprocessing.reductions import StorageWeakRef

from timesformer.engine import batch as module
from timesformer.engine.batch import largest, with_chosen_batch
from timesformer.engine.needs import (
    GIB,
    Needs,
    plan_recomputing,
    trained_on_meta,
    training_needs,
)
from timesformer.engine.train import train
from timesformer.models.build import clip_shape, make_model
from timesformer.models.profiling import LiveStorages, held_bytes
from timesformer.utils.checkpoint import get_last_checkpoint, read_checkpoint
from timesformer.utils.errors import ConfigError, TrainingError

MIB = 2**20
ONE = {"SOLVER__MAX_EPOCH": 1, "SOLVER__WARMUP_EPOCHS": 0.0, "TEST__ENABLE": False}


def kept(model: Any, clips: torch.Tensor) -> tuple[int, list[torch.Tensor]]:
    """Bytes that a real forward pass keeps, and the gradients that follow."""
    torch.manual_seed(1)
    own = {StorageWeakRef(p.untyped_storage()).cdata for p in model.parameters()}
    with LiveStorages(own) as live:
        loss = model(clips * 1).square().sum()
        held = live.total_bytes()
    loss.backward()
    return held, [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("freeze", ["", "patch_embed, pos_embed, time_embed, cls_token, blocks.0"])
def test_recomputing_keeps_what_was_said_and_gives_the_same_gradients(
    synthetic_dir, tmp_path, caplog, freeze
):
    caplog.set_level(logging.INFO)
    sizes = {"TIMESFORMER__DEPTH": 4, "TIMESFORMER__DROP_PATH_RATE": 0.2, "TRAIN__FREEZE": freeze}
    cfg = small_cfg(synthetic_dir, tmp_path, **sizes)
    model = make_model(cfg).train()
    module.choose_trained(cfg, model)
    clips = torch.randn(8, 3, 4, 64, 64)
    plain, gradients = kept(model, clips)
    held = held_bytes(trained_on_meta(cfg), clip_shape(cfg))
    assert plain == pytest.approx(8 * held.per_clip, rel=0.03)
    # Of a frozen beginning nothing is kept, so what is there for a moment weighs more.
    assert held.per_clip < held.peak < (1.6 if freeze else 1.5) * held.per_clip
    cfg.TRAIN.ACTIVATION_GIB = 0.6 * plain / GIB
    assert plan_recomputing(cfg, model, 8) in (2, 3)
    assert "blocks recompute" in caplog.text
    recompute = [block.recompute for block in model.model.blocks]
    assert recompute[0] is not bool(freeze)  # a frozen beginning keeps nothing
    assert not recompute[-1]
    model.zero_grad()
    held, again = kept(model, clips)
    assert 0.3 * plain < held <= 0.6 * plain
    assert all(torch.equal(a, b) for a, b in zip(gradients, again, strict=True))


@pytest.mark.parametrize("scheme", ["joint_space_time", "factorised_dot_product"])
def test_what_a_block_gives_back_is_not_made_less_by_the_last(synthetic_dir, tmp_path, scheme):
    """Of the last block CLS alone is read, so it keeps less than the others."""
    sizes = {"TIMESFORMER__DEPTH": 2, "TIMESFORMER__ATTENTION_TYPE": scheme}
    cfg = small_cfg(synthetic_dir, tmp_path, **sizes)
    model, clips = make_model(cfg).train(), torch.randn(4, 3, 4, 64, 64)
    model.model.blocks[0].recompute = True
    held, _ = kept(model, clips)
    model.model.blocks[0].recompute = False
    cfg.TRAIN.ACTIVATION_GIB = 1.01 * held / GIB
    assert plan_recomputing(cfg, model, 4) == 1
    cfg.TRAIN.ACTIVATION_GIB = 0.97 * held / GIB
    with pytest.raises(ConfigError, match="at the least"):
        plan_recomputing(cfg, model, 4)


def test_a_budget_that_cannot_be_kept(synthetic_dir, tmp_path):
    cfg = small_cfg(synthetic_dir, tmp_path, **ONE, TRAIN__ACTIVATION_GIB=1e-4)
    with pytest.raises(ConfigError, match=r"TRAIN\.ACTIVATION_GIB 0\.0001: .* at the least"):
        train(cfg)


@pytest.mark.parametrize(
    ("limit", "tried", "found"), [(20, [64, 32, 16], 16), (0, [64, 32, 16, 8], 0)]
)
def test_trials_go_down_until_one_fits(limit, tried, found):
    seen: list[int] = []

    def attempt(clips: int) -> None:
        seen.append(clips)
        if clips > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    needs = Needs(1, GIB, GIB, 0, GIB)
    free = round(70 * 1.1 / module.BEYOND * GIB)  # 64 clips may fit, 128 can't
    assert largest([8, 16, 32, 64, 128], needs, free, attempt) == found
    assert seen == tried
    with pytest.raises(ValueError, match="a bug"):
        largest([8], needs, free, lambda n: (_ for _ in ()).throw(ValueError("a bug")))


def test_a_trial_is_a_step(synthetic_dir, tmp_path):
    cfg = small_cfg(synthetic_dir, tmp_path, TIMESFORMER__DEPTH=1, EMA__ENABLED=True)
    made: list[Any] = []
    real, average = module.make_model, module.Ema
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            module, "make_model", lambda cfg: made.append(weakref.ref(m := real(cfg))) or m
        )
        patch.setattr(
            module, "Ema", lambda *args: made.append(weakref.ref(e := average(*args))) or e
        )
        module._try(cfg, 2)
    assert len(made) == 2
    assert [one() for one in made] == [None, None]  # and leaves nothing behind


def test_auto_takes_what_fits_and_keeps_the_step(synthetic_dir, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    auto = ONE | {"TRAIN__BATCH_SIZE": "auto", "GLOBAL_BATCH_SIZE": 12}
    needs = training_needs(small_cfg(synthetic_dir, tmp_path))

    def enough(clips: int) -> int:
        return round((needs.total(clips) + needs.per_clip / 2) / module.OF_CPU)

    memory = {"free": enough(5)}
    monkeypatch.setattr(module, "memory_left", lambda: memory["free"])
    cfg = small_cfg(synthetic_dir, tmp_path / "auto", **auto)
    assert cfg.TRAIN.BATCH_SIZE == -1
    train(cfg)
    (start,) = stats(tmp_path / "auto", "start")
    layout = ("clips_per_rank", "accumulation", "global_batch")
    assert [start[name] for name in layout] == [4, 3, 12]  # of 1, 2, 3, 4, 6, 12
    last = read_checkpoint(get_last_checkpoint(tmp_path / "auto"))
    assert "BATCH_SIZE: 4" in last["cfg"]
    # By hand it is the same run, to the bit; and what goes on keeps the number, if it fits.
    train(small_cfg(synthetic_dir, tmp_path / "hand", **auto | {"TRAIN__BATCH_SIZE": 4}))
    by_hand = read_checkpoint(get_last_checkpoint(tmp_path / "hand"))["model_state"]
    assert all(torch.equal(value, by_hand[name]) for name, value in last["model_state"].items())
    memory["free"] = enough(20)
    assert with_chosen_batch(cfg).TRAIN.BATCH_SIZE == 4
    memory["free"] = enough(3)
    assert with_chosen_batch(cfg).TRAIN.BATCH_SIZE == 3
    for none in (enough(0), 0):
        memory["free"] = none
        with pytest.raises(TrainingError, match=r"TRAIN\.BATCH_SIZE auto: memory doesn't suffice"):
            with_chosen_batch(cfg)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"GLOBAL_BATCH_SIZE": 0}, "TRAIN.BATCH_SIZE auto needs GLOBAL_BATCH_SIZE"),
        ({"GLOBAL_BATCH_SIZE": 7, "MIXUP__ENABLED": True}, "GLOBAL_BATCH_SIZE 7 doesn't divide"),
        ({"TRAIN__ACTIVATION_GIB": 1.0}, "TRAIN.ACTIVATION_GIB"),
    ],
)
def test_auto_that_cannot_be(synthetic_dir, tmp_path, options, said):
    with pytest.raises(ConfigError, match=said):
        small_cfg(synthetic_dir, tmp_path, TRAIN__BATCH_SIZE="auto", **options)


def test_a_budget_and_all_blocks_do_not_go_together(synthetic_dir, tmp_path):
    both = {"TRAIN__ACTIVATION_GIB": 1.0, "TIMESFORMER__ACT_CHECKPOINT": True}
    with pytest.raises(ConfigError, match="set one of them"):
        small_cfg(synthetic_dir, tmp_path, **both)
