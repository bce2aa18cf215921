"""What may change between two starts of a run, and what a checkpoint must be to go on from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import small_cfg, stats

from timesformer.commands.compare_runs import main as compare_runs
from timesformer.commands.run import run
from timesformer.config.defaults import get_cfg
from timesformer.engine import resume
from timesformer.engine import train as engine
from timesformer.engine.train import train
from timesformer.models.architecture import Architecture
from timesformer.utils.checkpoint import (
    get_last_checkpoint,
    get_path_to_best,
    get_path_to_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from timesformer.utils.errors import ConfigError, UserError, WeightsError
from timesformer.utils.lr_policy import get_lr_at_epoch

ONE = {"SOLVER__MAX_EPOCH": 1, "SOLVER__WARMUP_EPOCHS": 0, "TRAIN__EVAL_PERIOD": 0}
ANYWAY = "TRAIN.RESUME_ANYWAY: checkpoint_epoch_00001.pyth was trained with another"
TWO = ONE | {"SOLVER__MAX_EPOCH": 2}


@pytest.fixture(scope="module")
def trained(synthetic_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The content of a run's checkpoint after one epoch."""
    folder = tmp_path_factory.mktemp("trained")
    train(small_cfg(synthetic_dir, folder, **ONE))
    return read_checkpoint(get_last_checkpoint(folder))


def put(folder: Path, content: dict[str, Any]) -> Path:
    path = get_path_to_checkpoint(folder, 1)
    path.parent.mkdir(parents=True)
    write_checkpoint(path, content)
    return path


def test_every_key_of_the_schema_is_in_one_of_the_tables() -> None:
    tables = [resume.BENDING, resume.APPLIED, resume.SILENT]
    assert set().union(*tables) == dict(get_cfg().leaves()).keys()
    assert sum(map(len, tables)) == len(set().union(*tables))


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        ("TIMESFORMER.ATTENTION_TYPE", "divided_space_time", "joint_space_time"),
        ("TIMESFORMER.NUM_HEADS", "3", "6"),
        ("TIMESFORMER.CLS_IN_TIME", "False", "True"),
        ("DATA.SAMPLING_RATE", "2", "3"),
        ("DATA.MEAN", "[0.45, 0.45, 0.45]", "[0.5, 0.5, 0.5]"),
        ("GLOBAL_BATCH_SIZE", "8", "16"),
        ("RNG_SEED", "0", "1"),
        ("DATA.FRACTION", "1.0", "0.5"),
        ("SOLVER.OPTIMIZING_METHOD", "adamw", "sgd"),
    ],
)
def test_what_would_bend_a_run_is_refused(
    synthetic_dir: Path, tmp_path: Path, trained: dict[str, Any], key: str, old: str, new: str
) -> None:
    put(tmp_path, trained)
    cfg = small_cfg(synthetic_dir, tmp_path, **TWO, **{key.replace(".", "__"): new})
    with pytest.raises(ConfigError) as error:
        train(cfg)
    message = str(error.value)
    assert f"{key}: {old} → {new}" in message
    assert "another OUTPUT_DIR" in message


def test_epochs_of_a_run_whose_clips_grow_are_not_changed(trained: dict[str, Any]) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["TRAIN.MULTIGRID", "long", "SOLVER.MAX_EPOCH", 9])
    bending, told = resume.compare(trained, cfg, Architecture.from_cfg(cfg))
    assert bending["SOLVER.MAX_EPOCH"] == (1, 9)
    assert "TRAIN.MULTIGRID" in bending
    assert "SOLVER.MAX_EPOCH" not in told


def test_what_may_change_is_applied_and_said(
    synthetic_dir: Path,
    tmp_path: Path,
    trained: dict[str, Any],
) -> None:
    put(tmp_path, trained)
    train(small_cfg(synthetic_dir, tmp_path, **TWO, SOLVER__WEIGHT_DECAY=0.25))
    groups = read_checkpoint(get_path_to_checkpoint(tmp_path, 2))["optimizer_state"]["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.25}
    text = (tmp_path / "run.log").read_text()
    assert "SOLVER.WEIGHT_DECAY: 0.05 → 0.25" in text
    assert "SOLVER.MAX_EPOCH: 1 → 2" in text
    assert "OUTPUT_DIR" not in text


def test_another_list_is_refused(
    synthetic_dir: Path, tmp_path: Path, trained: dict[str, Any]
) -> None:
    put(tmp_path, trained | {"train_list": "0" * 64})
    with pytest.raises(ConfigError, match=r"another list of videos \(DATA\.PATH_TO_DATA_DIR"):
        train(small_cfg(synthetic_dir, tmp_path, **TWO))


def test_a_run_goes_on_anyway_and_says_so(
    synthetic_dir: Path,
    tmp_path: Path,
    trained: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    put(tmp_path, trained | {"train_list": "0" * 64})
    options = TWO | {"RNG_SEED": 3, "TRAIN__RESUME_ANYWAY": True}
    train(small_cfg(synthetic_dir, tmp_path, **options))
    said = read_checkpoint(get_last_checkpoint(tmp_path))["resumed_anyway"]
    changes = ["RNG_SEED: 0 → 3", f"list of videos: {'0' * 12} → {trained['train_list'][:12]}"]
    assert said == [{"epoch": 1, "step": 0, "changes": changes}]
    log = (tmp_path / "run.log").read_text()
    assert all(f"WARNING timesformer.engine.going_on: {ANYWAY} {line}" in log for line in changes)
    # It is in the history from now on, and nothing is asked anyway any more.
    train(small_cfg(synthetic_dir, tmp_path, **TWO | {"RNG_SEED": 3, "SOLVER__MAX_EPOCH": 3}))
    assert read_checkpoint(get_last_checkpoint(tmp_path))["resumed_anyway"] == said
    compare_runs([str(tmp_path)])
    note = f"went on with other settings after epoch 1: {', '.join(changes)}"
    assert note in capsys.readouterr().out


def test_anyway_is_no_way_for_weights_that_do_not_fit(
    synthetic_dir: Path, tmp_path: Path, trained: dict[str, Any]
) -> None:
    put(tmp_path, trained)
    options = TWO | {"TIMESFORMER__DEPTH": 1, "TRAIN__RESUME_ANYWAY": True}
    with pytest.raises(WeightsError, match="made by another model"):
        train(small_cfg(synthetic_dir, tmp_path, **options))


def test_an_epoch_of_other_steps_begins_again(
    synthetic_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a run that is cut once more goes on from what it has saved since."""
    real, done = engine.train_step, []

    def cut_at_third(*args: Any) -> Any:
        done.append(0)
        if len(done) % 3 == 0:
            raise ZeroDivisionError  # unlike Ctrl-C it waits for what is being written
        return real(*args)

    options = ONE | {"TRAIN__CHECKPOINT_STEPS": 2, "TRAIN__BATCH_SIZE": 4, "GLOBAL_BATCH_SIZE": 4}
    other = options | {"GLOBAL_BATCH_SIZE": 8, "TRAIN__RESUME_ANYWAY": True}
    with monkeypatch.context() as patch:
        patch.setattr(engine, "train_step", cut_at_third)
        with pytest.raises(ZeroDivisionError):
            train(small_cfg(synthetic_dir, tmp_path, **options))
        assert get_last_checkpoint(tmp_path) == get_path_to_checkpoint(tmp_path, 0, 2)
        with pytest.raises(ZeroDivisionError):
            train(small_cfg(synthetic_dir, tmp_path, **other | {"TRAIN__CHECKPOINT_STEPS": 1}))
    assert get_last_checkpoint(tmp_path) == get_path_to_checkpoint(tmp_path, 0, 2)
    train(small_cfg(synthetic_dir, tmp_path, **other))
    assert [line["iter"] for line in stats(tmp_path, "train_iter")] == [
        *("1/6", "2/6"),
        *("1/3", "2/3"),
        "3/3",
    ]


def test_named_sizes_are_no_change() -> None:
    """An old checkpoint of vit_tiny says ViT-B's heads in its config and has no architecture."""
    cfg = get_cfg()
    cfg.MODEL.MODEL_NAME = "vit_tiny_patch16_224"
    from timesformer.models.architecture import Architecture

    content = {"cfg": cfg.dump()}
    assert resume.compare(content, cfg, Architecture.from_cfg(cfg)) == ({}, {})


OPTIMIZER = "optimizer_state"


def without_shapes(content: dict[str, Any]) -> dict[str, Any]:
    state = {n: dict(kept) for n, kept in content[OPTIMIZER]["state"].items()}
    state[0]["exp_avg"] = torch.zeros(1)
    return {OPTIMIZER: content[OPTIMIZER] | {"state": state}}


def of_sgd(content: dict[str, Any]) -> dict[str, Any]:
    state = {n: {"momentum_buffer": k["exp_avg"]} for n, k in content[OPTIMIZER]["state"].items()}
    return {OPTIMIZER: content[OPTIMIZER] | {"state": state}}


def weight(value: Any) -> Any:
    def change(content: dict[str, Any]) -> dict[str, Any]:
        state = dict(content["model_state"])
        name = next(n for n in state if n.endswith("head.bias"))
        return {"model_state": state | {name: value(state[name])}}

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (without_shapes, r"optimizer state doesn't fit .*exp_avg isn't of shape"),
        (of_sgd, r"optimizer state doesn't fit .*momentum_buffer"),
        (lambda c: {OPTIMIZER: 3}, "optimizer state doesn't fit"),
        (lambda c: {OPTIMIZER: torch.zeros(2, 2)}, "optimizer state doesn't fit"),
        (lambda c: {OPTIMIZER: {"state": [], "param_groups": [7]}}, "optimizer state doesn't fit"),
        (lambda c: {"epoch": "1"}, "epoch is '1'"),
        (lambda c: {"epoch": -1}, "epoch is -1"),
        (lambda c: {"epoch": True}, "epoch is True"),
        (weight(lambda t: t * float("nan")), r"head\.bias has values that are not finite"),
        (weight(lambda t: t.to(torch.int8)), r"head\.bias is of torch\.int8"),
        (weight(lambda t: t.bool()), r"head\.bias is of torch\.bool"),
        (weight(lambda t: t.to(torch.complex64)), r"head\.bias is of torch\.complex64"),
        (weight(lambda t: "text"), r"head\.bias: str in the file"),
    ],
)
def test_a_checkpoint_that_cant_be_is_one_line(
    synthetic_dir: Path, tmp_path: Path, trained: dict[str, Any], change: Any, complaint: str
) -> None:
    put(tmp_path, trained | change(trained))
    with pytest.raises(WeightsError, match=complaint):
        train(small_cfg(synthetic_dir, tmp_path, **TWO))


def test_a_checkpoint_of_no_fp16_starts_its_loss_scale_afresh(tmp_path: Path) -> None:
    from timesformer.engine.going_on import _restore_scaler

    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for saved in ({}, None):
        _restore_scaler(tmp_path, saved, scaler)
        assert scaler.get_scale() == 8
    with pytest.raises(WeightsError, match="scaler_state"):
        _restore_scaler(tmp_path, {"scale": "big"}, scaler)
    with pytest.raises(WeightsError, match="scaler_state"):
        _restore_scaler(tmp_path, scaler.state_dict() | {"scale": 0.0}, scaler)
    other = torch.amp.GradScaler("cpu", init_scale=4.0)
    _restore_scaler(tmp_path, other.state_dict(), scaler)
    assert scaler.get_scale() == 4


def test_what_is_passed_over_is_said(
    synthetic_dir: Path, tmp_path: Path, trained: dict[str, Any]
) -> None:
    source = put(tmp_path / "first", trained)
    put(tmp_path / "second", trained)
    options = TWO | {"TRAIN__FINETUNE": True, "TRAIN__CHECKPOINT_FILE_PATH": source}
    train(small_cfg(synthetic_dir, tmp_path / "second", **options))
    text = (tmp_path / "second" / "run.log").read_text()
    assert f"TRAIN.CHECKPOINT_FILE_PATH {source} (TRAIN.FINETUNE) is where it began" in text


def test_advice_is_what_helps(synthetic_dir: Path, tmp_path: Path, trained: dict[str, Any]) -> None:
    """CHECKPOINT_EPOCH_RESET changes nothing while OUTPUT_DIR has a checkpoint."""
    source = put(tmp_path / "run", trained)
    with pytest.raises(UserError) as own:
        train(small_cfg(synthetic_dir, tmp_path / "run", **TWO, RNG_SEED=1))
    assert "EPOCH_RESET" not in str(own.value)
    options = TWO | {"RNG_SEED": 1, "TRAIN__CHECKPOINT_FILE_PATH": source}
    with pytest.raises(UserError, match="CHECKPOINT_EPOCH_RESET True"):
        train(small_cfg(synthetic_dir, tmp_path / "other", **options))
    train(
        small_cfg(synthetic_dir, tmp_path / "other", **options, TRAIN__CHECKPOINT_EPOCH_RESET=True)
    )


def test_an_epoch_reset_takes_the_same_task_only(
    synthetic_dir: Path, tmp_path: Path, trained: dict[str, Any]
) -> None:
    state = {k: v for k, v in trained["model_state"].items() if "head" not in k}
    source = put(tmp_path / "first", trained | {"model_state": state})
    options = {"TRAIN__CHECKPOINT_FILE_PATH": source, "TRAIN__CHECKPOINT_EPOCH_RESET": True}
    with pytest.raises(WeightsError, match=r"lacks .*head.*TRAIN\.FINETUNE True"):
        train(small_cfg(synthetic_dir, tmp_path / "second", **ONE, **options))


@pytest.mark.parametrize("classes", ["same", "other", "unknown"])
def test_the_head_of_other_classes_is_fresh(
    synthetic_dir: Path, tmp_path: Path, trained: dict[str, Any], classes: str
) -> None:
    others = {"other": [f"other {i}" for i in range(6)], "unknown": []}
    same, names = classes == "same", others.get(classes, trained["class_names"])
    source = put(tmp_path / "first", trained | {"class_names": names})
    options = {"TRAIN__CHECKPOINT_FILE_PATH": source, "TRAIN__FINETUNE": True}
    train(small_cfg(synthetic_dir, tmp_path / "b", **ONE, **options, SOLVER__BASE_LR=1e-9))
    after = read_checkpoint(get_last_checkpoint(tmp_path / "b"))["model_state"]
    name = next(n for n in after if n.endswith("head.weight"))
    assert torch.allclose(after[name], trained["model_state"][name], atol=1e-6) == same
    assert ("its head is kept" if same else "the head is fresh") in (
        tmp_path / "b" / "run.log"
    ).read_text()


def test_a_validation_that_a_kill_took_is_made_up(
    synthetic_dir: Path, tmp_path: Path, trained: dict[str, Any]
) -> None:
    put(tmp_path, trained)
    train(small_cfg(synthetic_dir, tmp_path, **TWO | {"TRAIN__EVAL_PERIOD": 1}))
    assert [line["epoch"] for line in stats(tmp_path, "val")] == ["1/2", "2/2"]
    train(small_cfg(synthetic_dir, tmp_path, **TWO | {"TRAIN__EVAL_PERIOD": 1}))
    assert len(stats(tmp_path, "val")) == 2


def test_a_folder_of_another_run_isnt_gone_on_with(
    synthetic_dir: Path, tmp_path: Path, trained: dict[str, Any]
) -> None:
    """One that goes on from elsewhere, into a folder where a longer run lies, tests its own."""
    source = put(tmp_path / "first", trained)
    folder = tmp_path / "second" / "checkpoints"
    folder.mkdir(parents=True)
    write_checkpoint(folder / "checkpoint_epoch_00009.pyth", trained | {"epoch": 8})
    options = TWO | {"TRAIN__AUTO_RESUME": False, "TRAIN__CHECKPOINT_FILE_PATH": source}
    run(small_cfg(synthetic_dir, tmp_path / "second", **options))
    assert [path.name for path in folder.glob("*.pyth")] == ["checkpoint_epoch_00002.pyth"]
    assert stats(tmp_path / "second", "test_final")[0]["checkpoint"].endswith("00002.pyth")


def test_a_file_under_another_epochs_name_is_neither_gone_on_with_nor_tested(
    synthetic_dir: Path, tmp_path: Path, trained: dict[str, Any]
) -> None:
    put(tmp_path, trained).rename(get_path_to_checkpoint(tmp_path, 9))
    for enabled in ({}, {"TRAIN__ENABLE": False}):
        with pytest.raises(WeightsError, match=r"00009\.pyth: holds epoch 1, which its name"):
            run(small_cfg(synthetic_dir, tmp_path, **TWO | enabled))


def test_storage_that_is_away_is_no_damage(
    synthetic_dir: Path, tmp_path: Path, trained: dict[str, Any]
) -> None:
    put(tmp_path, trained)
    newest = get_path_to_checkpoint(tmp_path, 2)
    newest.symlink_to("/nowhere/checkpoint_epoch_00002.pyth")
    with pytest.raises(WeightsError, match=r"00002\.pyth: .*No such file.*: wait for its storage"):
        train(small_cfg(synthetic_dir, tmp_path, **TWO))
    assert newest.is_symlink()


def test_a_run_that_goes_back_keeps_where_it_starts(
    synthetic_dir: Path, tmp_path: Path, trained: dict[str, Any]
) -> None:
    """Cut before its first save, the same command finds its start again."""
    source = put(tmp_path, trained)
    write_checkpoint(get_path_to_checkpoint(tmp_path, 5), trained | {"epoch": 4})
    options = ONE | {"TRAIN__AUTO_RESUME": False, "TRAIN__CHECKPOINT_FILE_PATH": source}
    train(small_cfg(synthetic_dir, tmp_path, **options))  # one epoch is done: nothing to train
    assert [path.name for path in source.parent.glob("*.pyth")] == [source.name]


@pytest.mark.parametrize("key", ["TRAIN__CHECKPOINT_FILE_PATH", "TIMESFORMER__PRETRAINED_MODEL"])
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_run_that_starts_over_doesnt_take_its_start_away(
    synthetic_dir: Path, tmp_path: Path, trained: dict[str, Any], key: str, what: str
) -> None:
    """The file that is read would be set aside, and replaced by what is trained from it."""
    source = put(tmp_path, trained)
    named = source if what == "file" else tmp_path
    options = ONE | {"TRAIN__AUTO_RESUME": False, "TRAIN__CHECKPOINT_EPOCH_RESET": True}
    with pytest.raises(ConfigError, match=r"itself, .*: take another OUTPUT_DIR"):
        train(small_cfg(synthetic_dir, tmp_path, **options, **{key: named}))
    assert list(source.parent.iterdir()) == [source]


@pytest.mark.parametrize("line", [b"{not json\n", b"7\n", b"\xff\xfe\n"])
def test_figures_that_cant_be_read_stop_no_run(
    synthetic_dir: Path, tmp_path: Path, trained: dict[str, Any], line: bytes
) -> None:
    put(tmp_path, trained)
    (tmp_path / "stats.jsonl").write_bytes(line)
    train(small_cfg(synthetic_dir, tmp_path, **ONE | {"TRAIN__EVAL_PERIOD": 1}))
    assert b'"val"' in (tmp_path / "stats.jsonl").read_bytes()


def test_a_best_that_a_kill_took_is_made_up(
    synthetic_dir: Path, tmp_path: Path, trained: dict[str, Any]
) -> None:
    """The run ended between the line of a validation and the checkpoint of the best."""
    put(tmp_path, trained)
    lines = [
        {"split": "start", "first_epoch": 1},
        {"split": "val", "epoch": "1/2", "top1_acc": 99.0},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "stats.jsonl").write_text(text)
    train(small_cfg(synthetic_dir, tmp_path, **TWO | {"TRAIN__EVAL_PERIOD": 1}))
    assert [line["epoch"] for line in stats(tmp_path, "val")] == ["1/2", "2/2"]
    best = read_checkpoint(get_path_to_best(tmp_path))
    assert best["validation"].items() >= {"epoch": 0, "top1_acc": 99.0}.items()
    last = get_lr_at_epoch(small_cfg(synthetic_dir, tmp_path, **TWO), 1 - 1 / 3)  # of three steps
    assert best["optimizer_state"]["param_groups"][0]["lr"] == last
    name = next(iter(trained["model_state"]))
    assert torch.equal(best["model_state"][name], trained["model_state"][name])


def test_weights_of_other_heads_arent_taken_in_silence(
    synthetic_dir: Path, tmp_path: Path, trained: dict[str, Any]
) -> None:
    """Their shapes fit."""
    source = put(tmp_path / "first", trained)
    options = ONE | {"TRAIN__CHECKPOINT_FILE_PATH": source, "TIMESFORMER__NUM_HEADS": 6}
    reset = small_cfg(synthetic_dir, tmp_path / "b", **options, TRAIN__CHECKPOINT_EPOCH_RESET=True)
    with pytest.raises(ConfigError, match=r"TIMESFORMER\.NUM_HEADS: 3 → 6"):
        train(reset)
    train(small_cfg(synthetic_dir, tmp_path / "c", **options, TRAIN__FINETUNE=True))
    assert "TIMESFORMER.NUM_HEADS: 3 → 6" in (tmp_path / "c" / "run.log").read_text()


def test_a_knob_newer_than_the_checkpoint_has_its_default() -> None:
    """Local attention of before LOCAL_WINDOW was that of quadrants."""
    from timesformer.models.architecture import Architecture

    cfg = get_cfg()
    cfg.TIMESFORMER.ATTENTION_TYPE = "sparse_local_global"
    cfg.TIMESFORMER.LOCAL_WINDOW = "centred"
    now = Architecture.from_cfg(cfg)
    stored = {k: v for k, v in now.to_json().items() if k != "local_window"}
    bending, _ = resume.compare({"architecture": stored}, cfg, now)
    assert bending == {"TIMESFORMER.LOCAL_WINDOW": ("quadrant", "centred")}
    cfg = get_cfg()
    cfg.MODEL.MODEL_NAME = "vtn"  # its default is the paper's, not the field's
    now = Architecture.from_cfg(cfg)
    stored = {k: v for k, v in now.to_json().items() if k != "temporal_depth"}
    assert resume.compare({"architecture": stored}, cfg, now) == ({}, {})
