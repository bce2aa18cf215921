"""Checkpoints in parts: three ranks write, anybody reads; damage, and manifests that lie."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from children import finish, running
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from timesformer.config.defaults import get_cfg
from timesformer.utils.checkpoint import (
    get_last_checkpoint,
    get_path_to_checkpoint,
    read_checkpoint,
)
from timesformer.utils.distributed import barrier, get_rank
from timesformer.utils.errors import WeightsError
from timesformer.utils.files import MANIFEST
from timesformer.utils.sharded_file import write_parts
from timesformer.utils.starting import launch

pytestmark = pytest.mark.dist

GROUPS = [{"lr": 0.1, "betas": (0.9, 0.99), "params": [0]}]


def weights() -> dict[str, torch.Tensor]:
    """What can be: fewer rows than ranks, rows that don't divide, one number, another type."""
    rows = {f"{n}.{k}": torch.arange(n * k).view(n, k) / 7 for n in range(1, 8) for k in (1, 3)}
    return rows | {"bf16": torch.ones(5).bfloat16(), "count": torch.tensor(3)}


def write(folder: Path) -> None:
    """Write two checkpoints, the second twice; and one for which there is no room."""

    def work(cfg: Any) -> None:
        mesh = init_device_mesh("cpu", (3,))
        parts = {
            name: distribute_tensor(value, mesh, [Shard(0)]) if value.ndim else value
            for name, value in weights().items()
        }
        state = {0: {"step": torch.tensor(4.0), "momentum_buffer": None}}
        optimizer = {"state": state, "param_groups": GROUPS}
        payload = {"model_state": parts, "optimizer_state": optimizer}
        for epoch in (0, 1, 1):
            path = get_path_to_checkpoint(folder, epoch + 1, in_parts=True)
            write_parts(path, payload | {"epoch": epoch})
        disk_is_full(folder, payload)

    cfg = get_cfg()
    cfg.NUM_GPUS = 0
    launch(cfg, "unused", work)


def disk_is_full(folder: Path, payload: Any) -> None:
    """The disk of rank 1 takes nothing more: none has a checkpoint, and all say why."""
    barrier()
    real, before = os.fsync, sorted((folder / "checkpoints").iterdir())
    barrier()

    def fsync(descriptor: int) -> None:
        if get_rank() == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    os.fsync = fsync
    try:
        with pytest.raises(WeightsError, match=r"can't write the checkpoint \(No space left"):
            write_parts(get_path_to_checkpoint(folder, 9, in_parts=True), payload)
    finally:
        os.fsync = real
    barrier()
    assert sorted((folder / "checkpoints").iterdir()) == before


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    with running(write, folder, output=folder / "said", ranks=3) as ranks:
        assert finish(ranks, 100) == [0, 0, 0], [rank.said[-3000:] for rank in ranks]
    return folder


@pytest.fixture
def run(written: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(written, tmp_path / "run"))


def test_one_process_reads_what_three_ranks_have_written(written: Path) -> None:
    names = sorted(path.name for path in (written / "checkpoints").iterdir())
    assert names == ["checkpoint_epoch_00001", "checkpoint_epoch_00002"]
    content = read_checkpoint(get_last_checkpoint(written))
    assert content.keys() == {"model_state", "optimizer_state", "epoch"}
    assert content["epoch"] == 1
    assert [*content["model_state"]] == [*weights()]
    for name, value in weights().items():
        assert torch.equal(content["model_state"][name], value), name
        assert content["model_state"][name].dtype == value.dtype
    assert content["optimizer_state"] == {
        "state": {0: {"step": torch.tensor(4.0)}},
        "param_groups": GROUPS,
    }


def refused(path: Path, run: Path, caplog: Any) -> None:
    """It isn't read, and the one before is what a run goes on from."""
    with pytest.raises(WeightsError, match=r"damaged|no checkpoint") as found:
        read_checkpoint(path)
    assert not isinstance(found.value.__cause__, OSError)
    caplog.clear()
    assert get_last_checkpoint(run) == get_path_to_checkpoint(run, 1, in_parts=True)
    assert "falling back to the checkpoint before" in caplog.text


def test_damage_is_noticed_and_the_one_before_is_taken(run: Path, caplog: Any) -> None:
    path, rng = get_last_checkpoint(run), random.Random(0)
    files = sorted(path.iterdir())
    assert [file.suffix for file in files] == [".json", *3 * [".safetensors"]]
    for file in files:
        data = file.read_bytes()
        for _ in range(20):
            flipped = bytearray(data)
            flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            file.write_bytes(flipped)
            refused(path, run, caplog)
            file.write_bytes(data[: rng.randrange(len(data))])
            refused(path, run, caplog)
        file.unlink()
        refused(path, run, caplog)
        file.write_bytes(data)
    read_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda said: said.update(format=2), "later version"),
        (lambda said: said.update(parts={"../x": ["", 1]}), "checkpoint.json isn't what"),
        (lambda said: said.update(parts=[]), "checkpoint.json isn't what"),
        (lambda said: said.update(parts={}), "not a readable checkpoint in parts"),
        (lambda said: said.pop("content"), "checkpoint.json isn't what"),
        (lambda said: said["content"].pop("param_groups"), "not a readable checkpoint in parts"),
        (lambda said: said["tensors"].popitem(), "not a readable checkpoint in parts"),
        (lambda said: said["tensors"].update({"x.y": [1]}), "not a readable checkpoint in parts"),
        (lambda said: said["parts"].popitem(), "not a readable checkpoint in parts"),
        (
            lambda said: said["tensors"].update({next(iter(said["tensors"])): [1 << 40]}),
            r"was \(1099511627776,\)",
        ),
    ],
)
def test_a_manifest_that_says_what_isnt_so_is_refused(
    run: Path, change: Callable[[Any], object], complaint: str
) -> None:
    path = get_last_checkpoint(run)
    text = (path / MANIFEST).read_text().partition("\n")[2]
    said = json.loads(text)
    change(said)
    text = json.dumps(said)
    first = json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest()})
    (path / MANIFEST).write_text(f"{first}\n{text}")
    with pytest.raises(WeightsError, match=complaint):
        read_checkpoint(path)
