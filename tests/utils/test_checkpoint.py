"""Checkpoint files: atomic, checked by digest, plain torch files."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from timesformer.config.defaults import get_cfg
from timesformer.utils import checkpoint, retry, torch_file
from timesformer.utils.errors import WeightsError
from timesformer.utils.files import HOST


@pytest.fixture
def model():
    return nn.Linear(4, 3)


@pytest.fixture
def optimizer(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    return optimizer


def test_round_trip(tmp_path, model, optimizer):
    path = checkpoint.save_checkpoint(tmp_path, model, optimizer, 4, get_cfg(), class_names=["a"])
    assert path == tmp_path / "checkpoints" / "checkpoint_epoch_00005.pyth"
    fresh = nn.Linear(4, 3)
    solver = torch.optim.SGD(fresh.parameters(), lr=0.5, momentum=0.9)
    assert checkpoint.load_checkpoint(path, fresh, solver) == 4
    assert torch.equal(fresh.weight, model.weight)
    assert solver.param_groups[0]["lr"] == 0.5  # settings are the caller's
    assert checkpoint.read_checkpoint(path)["class_names"] == ["a"]
    assert get_cfg().load_cfg(checkpoint.read_checkpoint(path)["cfg"]) == get_cfg()
    assert list(tmp_path.glob("**/*.tmp")) == []


def test_is_a_plain_torch_file(tmp_path, model, optimizer):
    path = checkpoint.save_checkpoint(tmp_path, model, optimizer, 0, get_cfg())
    assert torch.load(path, weights_only=True)["epoch"] == 0


def test_every_flip_and_truncation_is_noticed(tmp_path):
    path = tmp_path / "a.pyth"
    checkpoint.write_checkpoint(path, {"epoch": 1, "model_state": {"w": torch.randn(50)}})
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    damaged = []
    for _ in range(200):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        damaged.append(bytes(data))
    damaged += [whole[: rng.integers(len(whole))] for _ in range(50)]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(WeightsError, match=r"a\.pyth"):
            checkpoint.read_checkpoint(path, require_digest=True)
    path.write_bytes(whole)
    assert checkpoint.read_checkpoint(path, require_digest=True)["epoch"] == 1


def test_newest_sound_checkpoint_by_number(tmp_path, model, optimizer, caplog):
    assert checkpoint.get_last_checkpoint(tmp_path) is None
    for epoch in (8, 9, 99):  # by name, 00100 sorts after 00010 only because of the zeros
        checkpoint.save_checkpoint(tmp_path, model, optimizer, epoch, get_cfg())
    folder = checkpoint.get_checkpoint_dir(tmp_path)
    (folder / "checkpoint_epoch_100000.pyth").write_bytes(b"cut short")
    (folder / "notes.txt").write_text("not a checkpoint")
    assert checkpoint.get_last_checkpoint(tmp_path).name == "checkpoint_epoch_00100.pyth"
    assert "checkpoint_epoch_100000.pyth" in caplog.text


def test_full_disk_keeps_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "a.pyth"
    checkpoint.write_checkpoint(path, {"epoch": 1})
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WeightsError, match=r"a\.pyth.*No space left.*bytes.*free"):
        checkpoint.write_checkpoint(path, {"epoch": 2})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.pyth"]


def test_file_size_limit_keeps_the_earlier_file(tmp_path):
    """A write that fails midway, for real: the limit stands in for a full disk."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "a.pyth"
    checkpoint.write_checkpoint(path, {"epoch": 1})
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(WeightsError, match=r"a\.pyth.*needs 4\d\d,\d+ bytes, [\d,]+ are free"):
            checkpoint.write_checkpoint(path, {"w": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.pyth"]
    checkpoint.write_checkpoint(path, {"epoch": 2})  # space again
    assert checkpoint.read_checkpoint(path, require_digest=True) == {"epoch": 2}


def test_storage_that_fails_for_a_moment_is_tried_again(tmp_path, monkeypatch):
    real, failures = os.fsync, [errno.EIO, errno.ESTALE]

    def sync(descriptor: int) -> None:
        if failures:
            raise OSError(failures.pop(), "for a moment")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(retry, "WAITS", (0.0, 0.0))
    checkpoint.write_checkpoint(tmp_path / "a.pyth", {"epoch": 1})
    assert checkpoint.read_checkpoint(tmp_path / "a.pyth", require_digest=True) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.pyth"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")
def test_workers_that_are_forked_meanwhile_do_not_hold_the_file(tmp_path):
    """Else a checkpoint takes space as long as they live, however long it is deleted."""
    with torch_file._descriptor(tmp_path / "a.tmp") as descriptor:
        if not (child := os.fork()):
            try:
                os.fstat(descriptor)
            except OSError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        os.write(descriptor, b"still ours")


def test_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(WeightsError, match=r"checkpoints/a\.pyth: can't write"):
        checkpoint.write_checkpoint(tmp_path / "checkpoints" / "a.pyth", {"epoch": 1})


def test_what_could_not_be_read_back_is_not_written(tmp_path):
    with pytest.raises(TypeError, match="scalar"):
        checkpoint.write_checkpoint(tmp_path / "a.pyth", {"lr": np.float64(0.1)})
    assert not list(tmp_path.iterdir())


def test_a_stump_is_damaged_whatever_torch_meets_in_it(tmp_path):
    """It looks for parts before the beginning of some: to the system an invalid argument."""
    path = tmp_path / "a.pyth"
    checkpoint.write_checkpoint(path, {"w": torch.zeros(100_000)})
    whole = path.read_bytes()
    for size in range(0, len(whole), 4_000):
        path.write_bytes(whole[:size])
        with pytest.raises(WeightsError, match="not a readable weights file"):
            checkpoint.read_checkpoint(path)


def test_flip_in_a_run_is_noticed_without_asking(tmp_path, model, optimizer):
    """Resuming reads its own files with the digest they have."""
    path = checkpoint.save_checkpoint(tmp_path, model, optimizer, 0, get_cfg())
    data = bytearray(path.read_bytes())
    data[data.index(model.weight.detach().numpy().tobytes())] ^= 1
    path.write_bytes(data)
    torch.load(path, weights_only=True)  # torch itself doesn't notice
    with pytest.raises(WeightsError, match="damaged"):
        checkpoint.load_checkpoint(path, model)
    assert not checkpoint.has_checkpoint(tmp_path)


def test_file_without_digest_is_read_unless_one_is_required(tmp_path):
    torch.save({"epoch": 1}, tmp_path / "foreign.pyth")
    assert checkpoint.read_checkpoint(tmp_path / "foreign.pyth") == {"epoch": 1}
    with pytest.raises(WeightsError, match="no digest"):
        checkpoint.read_checkpoint(tmp_path / "foreign.pyth", require_digest=True)


def test_compiled_model_is_saved_and_loaded_by_plain_names(tmp_path, model, optimizer):
    compiled = torch.compile(model, backend="eager")
    path = checkpoint.save_checkpoint(tmp_path, compiled, optimizer, 0, get_cfg())
    assert sorted(checkpoint.read_checkpoint(path)["model_state"]) == ["bias", "weight"]
    fresh = torch.compile(nn.Linear(4, 3), backend="eager")
    assert checkpoint.load_checkpoint(path, fresh) == 0
    assert torch.equal(fresh.weight, model.weight)


def test_leftovers_of_a_killed_save_are_swept_and_nothing_else(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host, day = HOST, 86400
    gone = [f".a.pyth.{host}.{dead.pid}.tmp", ".a.pyth.elsewhere.7.tmp", ".a.pyth.1234.tmp"]
    kept = [f".b.pyth.{host}.{os.getppid()}.tmp", ".b.pyth.elsewhere.7.tmp"]
    for name in gone + kept:
        (tmp_path / name).write_bytes(b"half")
    for name in gone[1:]:
        os.utime(tmp_path / name, (0, time.time() - 2 * day))
    checkpoint.write_checkpoint(tmp_path / "a.pyth", {"epoch": 1})
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["a.pyth", *kept])


def test_tables_of_whole_numbers_are_no_weights(tmp_path, model):
    """Video Swin's windows and counters of batch norm: such runs must go on."""
    model.register_buffer("relative_position_index", torch.arange(3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    path = checkpoint.save_checkpoint(tmp_path, model, optimizer, 0, get_cfg())
    assert checkpoint.load_checkpoint(path, model) == 0


def test_foreign_model_lists_all_differences(tmp_path, model, optimizer):
    path = checkpoint.save_checkpoint(tmp_path, model, optimizer, 0, get_cfg())
    other = nn.Sequential(nn.Linear(4, 3))
    complaint = (
        r"0\.bias: missing in the file, \(3,\) in the model; 0\.weight: .*"
        r"; bias: \(3,\) in the file, not in the model; weight: "
    )
    with pytest.raises(WeightsError, match=complaint):
        checkpoint.load_checkpoint(path, other)
    with pytest.raises(WeightsError, match=r"weight: \(3, 4\) in the file, \(5, 4\) in the model"):
        checkpoint.load_checkpoint(path, nn.Linear(4, 5))


def test_other_optimizer_is_a_clear_error(tmp_path, model, optimizer):
    path = checkpoint.save_checkpoint(tmp_path, model, optimizer, 0, get_cfg())
    two_groups = torch.optim.SGD([{"params": [model.weight]}, {"params": [model.bias]}], lr=0.1)
    with pytest.raises(WeightsError, match=r"OPTIMIZING_METHOD or the model \(.*groups of \[2\]"):
        checkpoint.load_checkpoint(path, model, two_groups)


def test_weights_without_epoch_are_not_a_run(tmp_path, model):
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    with pytest.raises(WeightsError, match=r"bare\.pth.*FINETUNE"):
        checkpoint.load_checkpoint(tmp_path / "bare.pth", model)


def test_missing_file(tmp_path):
    with pytest.raises(WeightsError, match=r"nowhere\.pyth"):
        checkpoint.read_checkpoint(Path(tmp_path) / "nowhere.pyth")


def test_checkpoint_epochs():
    cfg = get_cfg()
    cfg.TRAIN.CHECKPOINT_PERIOD = 3
    assert [e for e in range(9) if checkpoint.is_checkpoint_epoch(cfg, e)] == [2, 5, 8]
