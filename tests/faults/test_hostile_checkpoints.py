"""Files that call themselves checkpoints: no code runs, no reader crashes, loops or runs over."""

from __future__ import annotations

import collections
import functools
import json
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from campaign import scaled, tell
from children import Run
from small_run import small_cfg

from timesformer.engine.train import train
from timesformer.utils.checkpoint import get_last_checkpoint, read_checkpoint

CASES = scaled(700)  # a file times a reader
MEMORY = 12 << 30  # address space of a reader, in bytes; torch alone maps gigabytes
SECONDS = 40.0


def resume(path: str, cfg: Any) -> None:
    from timesformer.engine.optimizer import construct_optimizer
    from timesformer.engine.start import load_train_checkpoint
    from timesformer.models.build import build_model

    cfg.TRAIN.CHECKPOINT_FILE_PATH = path
    model = build_model(cfg)
    load_train_checkpoint(cfg, model, construct_optimizer(model, cfg))


def test_it(path: str, cfg: Any) -> None:
    from timesformer.engine.tested import load_test_checkpoint
    from timesformer.models.build import build_model

    cfg.TEST.CHECKPOINT_FILE_PATH = path
    load_test_checkpoint(cfg, build_model(cfg))


def from_pretrained(path: str, cfg: Any) -> None:
    from timesformer.models.vit import TimeSformer

    TimeSformer.from_pretrained(path)


def convert(path: str, cfg: Any) -> None:
    from timesformer.commands.convert import main

    main([path, f"{path}.out.safetensors"])


test_it.__test__ = False  # type: ignore[attr-defined]
READERS: tuple[Callable[[str, Any], None], ...] = (resume, test_it, from_pretrained, convert)


def read(reader: int, path: str, cfg: Any) -> None:
    READERS[reader](path, cfg)


class Payload:
    """Runs a command where it is unpickled."""

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call, self.args


def payloads(mark: Path) -> Iterator[tuple[str, Any]]:
    touch = f"touch {mark}"
    yield "os.system", Payload(os.system, touch)
    yield "eval", Payload(eval, f"__import__('os').system({touch!r})")
    yield "exec", Payload(exec, f"import os; os.system({touch!r})")
    yield "partial", Payload(functools.partial(os.system, touch))
    yield "numpy objects", np.array([Payload(os.system, touch)], dtype=object)
    yield "nested", [{"a": (1, [Payload(os.system, touch)])}]
    yield "defaultdict", collections.defaultdict(list, {"a": Payload(os.system, touch)})


def itself() -> dict[str, Any]:
    loop: dict[str, Any] = {}
    loop["model_state"] = loop
    return loop


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 10**30, 1e400, "", "text", "\ud800", b"bytes", [], {}, (), [1, "a", None],
    {"a": {"b": {}}}, deep(500), {1: 2}, {"": torch.zeros(1)}, torch.zeros(0), torch.tensor(3),
    torch.full((2, 3), float("nan")), torch.zeros(2, dtype=torch.int8),
    torch.zeros(1).expand(1 << 40),
    torch.zeros(3, 3).to_sparse(), torch.zeros(2, dtype=torch.complex64),
    torch.zeros(2, dtype=torch.bool), torch.zeros(2, 2, device="meta"),
)  # fmt: skip


def contents(whole: dict[str, Any], mark: Path) -> Iterator[tuple[str, Any]]:
    for name, payload in payloads(mark):
        for key in ("model_state", "epoch", "extra", "cfg"):
            yield f"{name} in {key}", whole | {key: payload}
        yield f"{name} alone", payload
    yield "itself", whole | {"model_state": itself()}
    yield "only itself", itself()
    for key in whole:
        for value in ODD_VALUES:
            yield f"{key} is {value!r:.40}", whole | {key: value}
        yield f"no {key}", {k: v for k, v in whole.items() if k != key}
    names = list(whole["model_state"])
    for i, value in enumerate(ODD_VALUES):
        name = names[i % len(names)]
        yield (
            f"{name} is {value!r:.40}",
            whole | {"model_state": whole["model_state"] | {name: value}},
        )
    state = whole["optimizer_state"]["state"]
    for value in ODD_VALUES:
        for what in ("exp_avg", "step"):
            changed = {0: state[0] | {what: value}}
            optimizer = whole["optimizer_state"] | {"state": state | changed}
            yield f"optimizer's {what} is {value!r:.40}", whole | {"optimizer_state": optimizer}


def tensor(dtype: str, length: int, size: int) -> dict[str, Any]:
    """A header of safetensors."""
    return {"w": {"dtype": dtype, "shape": [length], "data_offsets": [0, size]}}


def raw_files(folder: Path, whole: Path) -> Iterator[Path]:
    """Files that no torch.save writes."""

    def put(name: str, data: bytes) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    yield put("empty.pyth", b"")
    yield put("text.pyth", b"no checkpoint at all\n" * 100)
    yield put("pickle.pyth", pickle.dumps({"model_state": {}}))
    yield put("zip.pyth", b"PK\x05\x06" + bytes(18))
    with zipfile.ZipFile(folder / "other.pyth", "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(1))
    yield folder / "other.pyth"
    for name, header in {
        "huge.safetensors": (1 << 62, b""),
        "rubbish.safetensors": (5, b"hello"),
        "beyond.safetensors": (None, tensor("F32", 9, 36)),
        "shape.safetensors": (None, tensor("F32", 1 << 40, 4)),
        "type.safetensors": (None, tensor("X9", 1, 4)),
    }.items():  # fmt: skip
        length, text = header
        data = text if isinstance(text, bytes) else json.dumps(text).encode()
        yield put(
            name, struct.pack("<Q", len(data) if length is None else length) + data + bytes(4)
        )
    arrays = folder / "huge.npz"
    with zipfile.ZipFile(arrays, "w") as archive:
        shape = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"
        text = shape.ljust(118 - 10 + 10) + b"\n"
        member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(16)
        archive.writestr("embedding/kernel.npy", member)
    yield arrays
    np.savez(folder / "objects.npz", a=np.array([{}], dtype=object))
    yield folder / "objects.npz"
    for name, config in {
        "hf_rubbish": b"{",
        "hf_list": b"[1]",
        "hf_deep": b"[" * 10**5,
        "hf_types": b'{"num_frames": "x"}',
    }.items():  # fmt: skip
        (folder / name).mkdir()
        (folder / name / "config.json").write_bytes(config)
        (folder / name / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
        yield folder / name
    data = bytearray(whole.read_bytes())
    rng = random.Random(3)
    for i in range(20):
        flipped = bytearray(data)
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        yield put(f"flip{i}.pyth", bytes(flipped))
        yield put(f"cut{i}.pyth", bytes(data[: rng.randrange(len(data))]))


@pytest.fixture(scope="module")
def trained(synthetic_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train(small_cfg(synthetic_dir, folder, SOLVER__MAX_EPOCH=1, SOLVER__WARMUP_EPOCHS=0))
    path = get_last_checkpoint(folder)
    assert path is not None
    return path


def test_no_hostile_checkpoint_does_harm(
    trained: Path, synthetic_dir: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "code_has_run"
    whole = read_checkpoint(trained)
    files = list(raw_files(tmp_path, trained))
    for i, (name, content) in enumerate(contents(whole, mark)):
        path = tmp_path / f"hostile{i}.pyth"
        try:
            torch.save(content, path)
        except Exception:
            continue
        files.append(path)
        path.with_suffix(".name").write_text(name)
    cases = [(path, reader) for path in files for reader in range(len(READERS))]
    random.Random(5).shuffle(cases)
    cases = cases[:CASES]
    cfg = small_cfg(synthetic_dir, tmp_path / "run", TRAIN__AUTO_RESUME=False)
    counts: collections.Counter[str] = collections.Counter()
    wrong = []
    for number, (path, reader) in enumerate(cases):
        said = tmp_path / f"said{number}.txt"
        run = Run(read, reader, str(path), cfg, output=said, limits={"RLIMIT_AS": MEMORY})
        status = run.wait(SECONDS)
        run.clear()
        kind = {0: "loaded", 2: "refused", None: "loops"}.get(status, "untyped")
        if status is not None and status < 0:
            kind = "crashed"
        counts[kind] += 1
        if kind == "refused" and len(run.complaint.splitlines()) != 1:
            kind = "of several lines"
            counts[kind] += 1
        if kind not in ("loaded", "refused"):
            label = path.with_suffix(".name")
            what = label.read_text() if label.exists() else path.name
            wrong.append(f"{READERS[reader].__name__}: {what}: {kind}: {run.said[-250:]}")
    tell(
        "hostile checkpoints", cases=len(cases), files=len(files), loaded=counts["loaded"],
        refused=counts["refused"], code_runs=int(mark.exists()), untyped_errors=counts["untyped"],
        crashes=counts["crashed"], loops=counts["loops"],
    )  # fmt: skip
    assert not mark.exists()
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong[:40])
