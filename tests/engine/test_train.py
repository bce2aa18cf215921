"""The training loop: resuming, accumulation, fine-tuning, mixed precision, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from small_run import small_cfg, stats
from torch import nn

from timesformer.datasets.build import build_preprocessing
from timesformer.engine.start import load_train_checkpoint
from timesformer.engine.train import in_groups, train
from timesformer.models.build import build_model
from timesformer.models.create import from_pretrained
from timesformer.utils.checkpoint import get_last_checkpoint, read_checkpoint
from timesformer.utils.errors import ConfigError, TrainingError, WeightsError


def losses(output):
    return [line["loss"] for line in stats(output, "train_iter")]


def final_weights(output):
    return read_checkpoint(get_last_checkpoint(output))


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list):
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


@pytest.mark.parametrize("workers", [0, 2])
def test_four_epochs_equal_two_and_two_more_bit_for_bit(synthetic_dir, tmp_path, workers):
    """With everything random switched on: DropPath, mixup, random clips and crops."""
    options = {
        "SOLVER__MAX_EPOCH": 4,
        "TIMESFORMER__DROP_PATH_RATE": 0.3,
        "MIXUP__ENABLED": True,
        "DATA_LOADER__NUM_WORKERS": workers,
    }
    train(small_cfg(synthetic_dir, tmp_path / "straight", **options))
    cut = tmp_path / "cut"
    train(small_cfg(synthetic_dir, cut, **options))
    for epoch in (3, 4):  # as if the machine had gone down in the third epoch
        (cut / "checkpoints" / f"checkpoint_epoch_0000{epoch}.pyth").unlink()
    (cut / "stats.jsonl").unlink()
    train(small_cfg(synthetic_dir, cut, **options))
    assert stats(cut, "start")[0]["first_epoch"] == 3
    assert losses(cut) == losses(tmp_path / "straight")[6:]
    straight, resumed = final_weights(tmp_path / "straight"), final_weights(cut)
    for key in ("epoch", "model_state", "optimizer_state", "preprocessing", "class_names"):
        assert_same(straight[key], resumed[key])


def test_accumulation_equals_one_large_batch(synthetic_dir, tmp_path):
    train(small_cfg(synthetic_dir, tmp_path / "whole"))
    train(small_cfg(synthetic_dir, tmp_path / "parts", TRAIN__BATCH_SIZE=2))
    whole, parts = losses(tmp_path / "whole"), losses(tmp_path / "parts")
    assert len(whole) == 6
    assert parts == pytest.approx(whole, abs=1e-5)
    assert stats(tmp_path / "parts", "start")[0]["accumulation"] == 4


def test_last_group_is_stepped(synthetic_dir, tmp_path):
    """24 clips in micro-batches of 4, three to a step: 2 steps; five to a step: 1 and 1 of one."""
    train(
        small_cfg(
            synthetic_dir,
            tmp_path,
            TRAIN__BATCH_SIZE=4,
            GLOBAL_BATCH_SIZE=20,
            SOLVER__MAX_EPOCH=1,
            SOLVER__WARMUP_EPOCHS=0,
        )
    )
    assert [line["iter"] for line in stats(tmp_path, "train_iter")] == ["1/2", "2/2"]
    assert [len(g) for g in in_groups(range(6), 5)] == [5, 1]
    assert [len(g) for g in in_groups(range(6), 3)] == [3, 3]


def test_finetuning_takes_weights_only_and_resumes_itself(synthetic_dir, tmp_path):
    train(small_cfg(synthetic_dir, tmp_path / "first", SOLVER__MAX_EPOCH=1))
    source = get_last_checkpoint(tmp_path / "first")
    options = {"TRAIN__FINETUNE": True, "TRAIN__CHECKPOINT_FILE_PATH": source}
    train(small_cfg(synthetic_dir, tmp_path / "second", **options, SOLVER__MAX_EPOCH=1))
    start, end = final_weights(tmp_path / "first"), final_weights(tmp_path / "second")
    assert end["epoch"] == 0
    name = "model.blocks.0.attn.qkv.weight"
    change = (start["model_state"][name] - end["model_state"][name]).abs().max()
    assert 0 < change < 0.05  # went on from there
    (tmp_path / "second" / "stats.jsonl").unlink()
    train(small_cfg(synthetic_dir, tmp_path / "second", **options, SOLVER__MAX_EPOCH=2))
    assert stats(tmp_path / "second", "start")[0]["first_epoch"] == 2


def test_continuing_another_run_takes_its_epoch(synthetic_dir, tmp_path):
    train(small_cfg(synthetic_dir, tmp_path / "first", SOLVER__MAX_EPOCH=1))
    source = get_last_checkpoint(tmp_path / "first")
    options = {"TRAIN__CHECKPOINT_FILE_PATH": source, "SOLVER__MAX_EPOCH": 2}
    train(small_cfg(synthetic_dir, tmp_path / "goes_on", **options))
    assert stats(tmp_path / "goes_on", "start")[0]["first_epoch"] == 2
    train(
        small_cfg(synthetic_dir, tmp_path / "anew", TRAIN__CHECKPOINT_EPOCH_RESET=True, **options)
    )
    assert stats(tmp_path / "anew", "start")[0]["first_epoch"] == 1


def test_damaged_checkpoint_falls_back_to_the_one_before(synthetic_dir, tmp_path):
    train(small_cfg(synthetic_dir, tmp_path, SOLVER__MAX_EPOCH=2))
    last = get_last_checkpoint(tmp_path)
    last.write_bytes(last.read_bytes()[:-200])
    (tmp_path / "stats.jsonl").unlink()
    train(small_cfg(synthetic_dir, tmp_path, SOLVER__MAX_EPOCH=2))
    assert stats(tmp_path, "start")[0]["first_epoch"] == 2


def test_resuming_never_fetches_pretrained_weights(synthetic_dir, tmp_path, monkeypatch):
    train(small_cfg(synthetic_dir, tmp_path, SOLVER__MAX_EPOCH=1))
    from timesformer.engine import start

    def fetched(*args, **kwargs):
        raise AssertionError("pretrained weights were asked for")

    monkeypatch.setattr(start, "read_weights", fetched)
    options = {
        "TIMESFORMER__PRETRAINED_MODEL": "timm/vit_base_patch16_224",
        "TIMESFORMER__INIT": "image",
    }
    train(small_cfg(synthetic_dir, tmp_path, SOLVER__MAX_EPOCH=2, **options))
    with pytest.raises(AssertionError, match="asked for"):
        train(small_cfg(synthetic_dir, tmp_path / "fresh", SOLVER__MAX_EPOCH=1, **options))


def test_missing_pretrained_file(synthetic_dir, tmp_path):
    with pytest.raises(WeightsError, match=r"nowhere\.pth.*PRETRAINED_MODEL"):
        train(
            small_cfg(
                synthetic_dir, tmp_path, TIMESFORMER__PRETRAINED_MODEL=tmp_path / "nowhere.pth"
            )
        )


def test_loss_that_is_not_finite_stops_before_the_step(synthetic_dir, tmp_path, monkeypatch):
    cfg = small_cfg(synthetic_dir, tmp_path)
    from timesformer.engine import assemble
    from timesformer.engine import train as module

    class Nan(nn.Module):
        def forward(self, logits, targets):
            return logits.sum() * float("nan")

    built = []
    real = module.build_model
    monkeypatch.setattr(module, "build_model", lambda cfg: built.append(real(cfg)) or built[-1])
    monkeypatch.setattr(assemble, "build_loss", lambda *args: Nan())
    with pytest.raises(TrainingError, match=r"epoch 1, step 1.*videos.*SOLVER\.BASE_LR"):
        train(cfg)
    assert all(p.isfinite().all() for p in built[0].parameters())


def test_steps_that_overflow_fp16_are_said_and_not_for_ever(synthetic_dir, tmp_path, monkeypatch):
    """The scale of the loss is halved from 4 to 2, 1 and 0.5; then it isn't the scale's fault."""
    from timesformer.engine import assemble

    class Endless(nn.Module):
        """A finite loss whose gradient isn't finite."""

        def forward(self, logits, targets):
            return (logits * 0).sum().abs().sqrt()

    real = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *_, **__: real("cpu", init_scale=4.0))
    monkeypatch.setattr(assemble, "build_loss", lambda *args: Endless())
    with pytest.raises(TrainingError, match=r"gradient is not finite.* in epoch 2, step 1 "):
        train(small_cfg(synthetic_dir, tmp_path))
    assert (tmp_path / "run.log").read_text().count("overflows fp16, this step is left out") == 3
    content = final_weights(tmp_path)
    assert content["epoch"] == 0
    assert all(v.isfinite().all() for v in content["model_state"].values())


@pytest.mark.parametrize("scheme", ["space_only", "joint_space_time", "divided_space_time"])
def test_bf16_clipping_and_act_checkpoint_train(synthetic_dir, tmp_path, scheme):
    train(
        small_cfg(
            synthetic_dir,
            tmp_path,
            TRAIN__AMP="bf16",
            SOLVER__CLIP_GRAD_L2NORM=1.0,
            SOLVER__MAX_EPOCH=1,
            TIMESFORMER__ACT_CHECKPOINT=True,
            TIMESFORMER__ATTENTION_TYPE=scheme,
        )
    )
    assert len(losses(tmp_path)) == 3
    dtypes = {v.dtype for v in final_weights(tmp_path)["model_state"].values()}
    assert dtypes == {torch.float32}


def test_clipping_bounds_the_step(synthetic_dir, tmp_path):
    """With plain SGD and lr 1 one step moves the weights by the clipped norm exactly."""
    options = {
        "SOLVER__OPTIMIZING_METHOD": "sgd",
        "SOLVER__BASE_LR": 1.0,
        "SOLVER__MOMENTUM": 0.0,
        "SOLVER__NESTEROV": False,
        "SOLVER__WEIGHT_DECAY": 0.0,
        "SOLVER__WARMUP_EPOCHS": 0,
        "SOLVER__MAX_EPOCH": 1,
        "GLOBAL_BATCH_SIZE": 24,
        "TRAIN__BATCH_SIZE": 24,
        "SOLVER__CLIP_GRAD_L2NORM": 1e-3,
    }
    from timesformer.models.build import build_model
    from timesformer.utils.rng import seed_all

    cfg = small_cfg(synthetic_dir, tmp_path, **options)
    seed_all("init", cfg.RNG_SEED)
    before = build_model(cfg).state_dict()
    train(cfg)
    after = final_weights(tmp_path)["model_state"]
    moved = sum((after[k] - before[k]).double().square().sum() for k in before).sqrt()
    assert moved.item() == pytest.approx(1e-3, rel=1e-3)


def test_too_few_videos_names_the_key(synthetic_dir, tmp_path):
    with pytest.raises(ConfigError, match=r"TRAIN\.BATCH_SIZE"):
        train(small_cfg(synthetic_dir, tmp_path, TRAIN__BATCH_SIZE=32, GLOBAL_BATCH_SIZE=32))


def test_a_share_of_the_videos_is_trained_on_and_said(synthetic_dir, tmp_path):
    cfg = small_cfg(synthetic_dir, tmp_path, SOLVER__MAX_EPOCH=1, DATA__FRACTION=0.5)
    train(cfg)
    (start,), (val,) = stats(tmp_path, "start"), stats(tmp_path, "val")
    assert (start["train_videos"], start["data_fraction"], val["videos"]) == (12, 0.5, 6)
    assert start["videos_per_class"] == {"min": 2, "median": 2.0, "max": 2}
    assert "DATA.FRACTION 0.5: 12 of 24 videos for training" in (tmp_path / "run.log").read_text()
    with pytest.raises(ConfigError, match=r"6 videos, fewer .* or raise DATA\.FRACTION 0\.25"):
        train(small_cfg(synthetic_dir, tmp_path / "few", DATA__FRACTION=0.25))


def test_tensorboard_and_log_file(synthetic_dir, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(small_cfg(synthetic_dir, tmp_path, SOLVER__MAX_EPOCH=1, TENSORBOARD__ENABLE=True))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"train/loss", "train/lr", "val/top1_acc", "val/mean_class_acc"} <= set(
        events.Tags()["scalars"]
    )
    assert [e.step for e in events.Scalars("train/loss")] == [1, 2, 3]
    log = (tmp_path / "run.log").read_text()
    assert "global batch 8 = 1 rank × 8 clips × 1 forward pass" in log
    fields = "split epoch iter dt dt_data eta loss lr top1_err top5_err mem"
    assert sorted(stats(tmp_path, "train_iter")[0]) == sorted(fields.split())


def test_what_a_run_says_of_its_model(synthetic_dir, tmp_path):
    """A table of its parts, not a page of modules; and in its checkpoint all that makes a clip."""
    options = {"LOG_MODEL_INFO": True, "SOLVER__MAX_EPOCH": 1, "DATA__SAMPLING_RATE": 3}
    cfg = small_cfg(synthetic_dir, tmp_path, **options)
    train(cfg)
    said = (tmp_path / "run.log").read_text()
    assert "params  GMACs/clip" in said
    assert "Linear(" not in said
    model = from_pretrained(get_last_checkpoint(tmp_path))
    assert model.preprocessing == build_preprocessing(cfg, "train").to_json()
    assert None not in vars(build_preprocessing(cfg, "train")).values()
    rate = {"num_frames": 4, "sampling_rate": 3, "target_fps": 30.0}
    assert model.sampling == rate | {"clip_sampling": "center"}
    frames = torch.zeros(4, 90, 70, 3, dtype=torch.uint8)
    assert model(model.transform(frames)).shape == (1, cfg.MODEL.NUM_CLASSES)


def test_scratch_is_not_overwritten_by_image_weights_of_a_file(synthetic_dir, tmp_path):
    """The Synthetic recipes say scratch; whether a file is an image model is known on reading."""
    cfg = small_cfg(synthetic_dir, tmp_path)
    assert cfg.TIMESFORMER.INIT == "scratch"
    state = build_model(cfg).model.state_dict()
    torch.save(state, tmp_path / "video.pth")
    image = {k: v for k, v in state.items() if "temporal" not in k and k != "time_embed"}
    torch.save(image, tmp_path / "image.pth")
    cfg.TIMESFORMER.PRETRAINED_MODEL = str(tmp_path / "video.pth")
    assert load_train_checkpoint(cfg, build_model(cfg), None) == 0
    cfg.TIMESFORMER.PRETRAINED_MODEL = str(tmp_path / "image.pth")
    with pytest.raises(ConfigError, match=r"TIMESFORMER\.INIT scratch would be overwritten"):
        load_train_checkpoint(cfg, build_model(cfg), None)
