"""`timesformer verify`, and what a run writes down for it: its trace and its environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import complaint_of, small_cfg

from timesformer.commands.verify import main
from timesformer.engine import provenance
from timesformer.engine import train as module
from timesformer.engine.train import train
from timesformer.utils import determinism
from timesformer.utils.checkpoint import (
    get_last_checkpoint,
    get_path_to_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from timesformer.utils.errors import ConfigError

OPTIONS: dict[str, Any] = {
    "TIMESFORMER__DROP_PATH_RATE": 0.3,
    "MIXUP__ENABLED": True,
    "TRAIN__EVAL_PERIOD": 0,
    "EMA__ENABLED": True,
}


@pytest.fixture(scope="module")
def trained(synthetic_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was cut after its first epoch, and went on."""
    folder = tmp_path_factory.mktemp("verified") / "run"
    real, done = module.train_step, list[int]()

    def cut(*args: Any) -> Any:
        done.append(0)
        if len(done) == 4:
            raise KeyboardInterrupt
        return real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "train_step", cut)
        with pytest.raises(KeyboardInterrupt):
            train(small_cfg(synthetic_dir, folder, **OPTIONS))
    train(small_cfg(synthetic_dir, folder, **OPTIONS))
    return folder


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "trace.jsonl").read_text().splitlines()]


def verified(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit status, and what is said after the log."""
    status = 0
    capsys.readouterr()
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        status = int(end.code or 0)
    said = capsys.readouterr().out.splitlines()
    first = next(i for i, s in enumerate(said) if s.startswith(("equal", "within", "differs")))
    return status, "\n".join(said[first:])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_trace_says_what_the_steps_were(trained):
    head, *steps = lines_of(trained)
    assert [line.get("step") for line in steps] == [1, 2, 3, None, 1, 2, 3]
    assert [line["at"] for line in steps if "at" in line] == [
        [epoch, step] for epoch in (1, 2) for step in (1, 2, 3)
    ]
    assert [line["step"] for line in steps[:3] if "weights" in line] == [1, 2]
    assert head["first"] == [0, 0]
    assert steps[3]["first"] == [1, 0]
    assert len(head["tensors"]) == len(head["weights"]) == len(steps[0]["weights"])
    first = read_checkpoint(get_path_to_checkpoint(trained, 1))
    assert steps[3]["weights"][0][1] == pytest.approx(
        float(next(iter(first["model_state"].values())).norm())
    )


def test_runs_come_out_as_they_did_and_are_left_as_they_are(trained, capsys):
    before = contents(trained)
    status, said = verified(capsys, trained)
    assert status == 0
    assert said.startswith("equal bit for bit: 3 steps of the start at epoch 1, step 1, weights ")
    status, said = verified(capsys, trained, "--start", 2, "--tolerance", 0)
    assert status == 0
    assert said.startswith("equal bit for bit: 3 steps of the start at epoch 2, step 1, weights ")
    assert contents(trained) == before


def test_what_differs_is_named(trained, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    lines = lines_of(run)
    lines[2]["loss"] = (float.fromhex(lines[2]["loss"]) * (1 + 2**-20)).hex()
    (run / "trace.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    entries = json.loads((run / "environment.json").read_text())
    entries[0]["packages"]["torch"] = "1.0"
    (run / "environment.json").write_text(json.dumps(entries))
    status, said = verified(capsys, run)
    assert status == 0
    assert said.startswith("within tolerance 0.0001: 3 steps")
    assert "largest difference after step 2: loss (by 9.5e-07 of its size)" in said
    assert f"- packages torch: 1.0 → {torch.__version__}" in said
    status, said = verified(capsys, run, "--tolerance", 0)
    assert status == 1
    assert "beyond tolerance 0 from here on: after step 2: loss" in said
    status, said = verified(capsys, run, "TIMESFORMER.DROP_PATH_RATE", 0.5, "--steps", 1)
    assert status == 1
    assert "from here on: after step 1: loss" in said
    assert "- config TIMESFORMER.DROP_PATH_RATE: 0.3 → 0.5" in said


def test_other_starting_weights_are_seen_before_the_first_step(synthetic_dir, tmp_path, capsys):
    train(small_cfg(synthetic_dir, tmp_path / "a", SOLVER__MAX_EPOCH=1, SOLVER__WARMUP_EPOCHS=0))
    start = shutil.copy(get_last_checkpoint(tmp_path / "a"), tmp_path / "start.pyth")
    options = OPTIONS | {"TRAIN__FINETUNE": True, "TRAIN__CHECKPOINT_FILE_PATH": start}
    train(small_cfg(synthetic_dir, tmp_path / "run", **options))
    assert verified(capsys, tmp_path / "run", "--steps", 2)[0] == 0
    content = read_checkpoint(start)
    content["model_state"]["model.norm.bias"][0] += 1
    write_checkpoint(start, content)
    status, said = verified(capsys, tmp_path / "run", "--steps", 2)
    assert status == 1
    assert "from here on: before the first step: model.norm.bias" in said
    assert "- weights sha256: " in said


def test_what_can_not_be_verified(trained, tmp_path):
    assert "no such folder" in complaint_of(main, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "has no trace (trace.jsonl, which TRAIN.TRACE_STEPS" in complaint_of(
        main, tmp_path / "empty"
    )
    assert "--steps 9: of the start at epoch 1, step 1 3 steps were traced" in complaint_of(
        main, trained, "--steps", 9
    )
    assert "--start 3: " in complaint_of(main, trained, "--start", 3)
    run = shutil.copytree(trained, tmp_path / "run")
    get_path_to_checkpoint(run, 1).unlink()
    assert "went on from it, and it is gone" in complaint_of(main, run, "--start", 2)
    (run / "trace.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    assert "trace.jsonl, line 1: isn't what a run writes" in complaint_of(main, run)


def test_each_start_adds_to_the_environment(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    text = (trained / "environment.json").read_text()
    first, second = json.loads(text)
    assert [first["first"], second["first"]] == [[0, 0], [1, 0]]
    assert second["weights"]["source"].endswith("checkpoint_epoch_00001.pyth")
    assert first["packages"]["torch"] == torch.__version__
    assert first["lists"]["train"] == read_checkpoint(get_last_checkpoint(trained))["train_list"]
    assert first["git"] is None or len(first["git"]["commit"]) == 40
    said = read_checkpoint(get_last_checkpoint(trained))["environment"]
    assert said["started"] == second["started"]
    cfg = small_cfg(tmp_path, tmp_path)
    path = tmp_path / "environment.json"
    path.write_text("[1, 2")
    words = ["s3://me:hunter2@host/data?Signature=hunter2", "tcp://node0:9999", "a?b"]
    monkeypatch.setattr("sys.argv", words)
    entry = provenance.record(cfg, "test")
    assert entry["command"] == ["s3://…@host/data?…", *words[1:]]
    assert json.loads(path.read_text()) == [entry]
    assert (tmp_path / "environment.before.json").read_text() == "[1, 2"
    assert "hunter2" not in path.read_text()


def test_a_package_in_no_checkout_has_no_commit(tmp_path):
    (tmp_path / "__init__.py").touch()
    assert provenance.git_state(tmp_path) is None


def test_a_commit_is_of_the_code_that_runs_or_why_it_is_not_known(tmp_path, monkeypatch):
    package, other = tmp_path / "project" / "package", tmp_path / "other"
    for folder in (package, other):
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()

    def git(folder: Path, *words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", "-C", str(folder), *who, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    for folder in (package.parent, other):
        git(folder, "init", "-q")
    assert provenance.git_state(package) is None  # a project around it doesn't have it
    for folder in (package.parent, other):
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", folder.name)
    known = {"commit": git(package, "rev-parse", "HEAD"), "dirty": False}
    with monkeypatch.context() as patch:  # as in a hook of git
        patch.setenv("GIT_DIR", str(other / ".git"))
        patch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
        assert provenance.git_state(package) == known
    monkeypatch.setenv("PATH", "")
    found = provenance.git_state(package)
    assert found == {"commit": None, "dirty": None, "unknown": "git: No such file or directory"}


def test_deterministic_mode_is_on_within_a_run_and_off_after(synthetic_dir, tmp_path, monkeypatch):
    monkeypatch.delenv(determinism.VARIABLE, raising=False)
    real, modes = module.train_step, list[bool]()

    def step(*args: Any) -> Any:
        modes.append(torch.are_deterministic_algorithms_enabled())
        return real(*args)

    monkeypatch.setattr(module, "train_step", step)
    train(small_cfg(synthetic_dir, tmp_path, **OPTIONS, DETERMINISTIC=True))
    assert modes == [True] * 6
    assert not torch.are_deterministic_algorithms_enabled()
    assert os.environ[determinism.VARIABLE] == ":4096:8"


def test_what_deterministic_mode_refuses(monkeypatch):
    monkeypatch.setenv(determinism.VARIABLE, ":0:0")
    with pytest.raises(ConfigError, match="CUBLAS_WORKSPACE_CONFIG is :0:0; it has to be :4096:8"):
        determinism.fix_workspace()
    monkeypatch.delenv(determinism.VARIABLE)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(ConfigError, match="CUDA has started already"):
        determinism.fix_workspace()
    monkeypatch.setenv(determinism.VARIABLE, ":16:8")
    text = "max_pool3d_backward_cuda does not have a deterministic implementation, but you set"
    with pytest.raises(ConfigError, match=r"max_pool3d.*set it to False"), _deterministic():
        raise RuntimeError(text)
    assert not torch.are_deterministic_algorithms_enabled()


def _deterministic() -> Any:
    return determinism.deterministic(True)
