"""benchmarks/model.py, compare.py and cost_curve.py, on models that take no time."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from timesformer.config.defaults import get_cfg
from timesformer.models.attention import ATTENTION_REGISTRY, base
from timesformer.models.attention.layers import Mlp
from timesformer.models.build import meta_model
from timesformer.models.profiling import count_macs
from timesformer.utils.errors import UserError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCHEMES = sorted(name for name, _ in ATTENTION_REGISTRY)
# 10⁹ multiply-adds of a view of 8×224² (paper, Table 1).
PUBLISHED = {"space_only": 140.5, "joint_space_time": 179.6, "divided_space_time": 195.8}
TINY = ["--model", "tiny", "--device", "cpu", "--rounds", "2"]


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def program(name: str) -> Any:
    return importlib.import_module(name)


def model_of(scheme: str, frames: int, side: int, **sizes: int) -> torch.nn.Module:
    cfg = get_cfg()
    cfg.TIMESFORMER.ATTENTION_TYPE, cfg.MODEL.NUM_CLASSES = scheme, 400
    cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE = frames, side
    cfg.TIMESFORMER.update(sizes)
    return meta_model(cfg)


@pytest.mark.parametrize("scheme", PUBLISHED)
def test_the_skeleton_has_the_papers_multiply_adds(scheme: str) -> None:
    products = program("model_parts.skeleton").products_of(
        model_of(scheme, 8, 224), (3, 8, 224, 224), 1
    )
    assert sum(p.macs for p in products) / 1e9 == pytest.approx(PUBLISHED[scheme], abs=0.05)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_skeleton_computes_all_products_of_a_scheme(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    skeleton = program("model_parts.skeleton")
    monkeypatch.setattr(skeleton, "PIECE", 300)  # attention comes in pieces, some of them rests
    model, clip = model_of(scheme, 4, 48, EMBED_DIM=24, DEPTH=2, NUM_HEADS=3), (3, 4, 48, 48)
    forward = skeleton.products_of(model, clip, 2)
    macs = 2 * count_macs(model, clip)
    assert sum(p.macs for p in forward) == macs
    step = skeleton.of_training(forward)
    assert sum(p.macs for p in step) == 3 * macs - forward[0].macs  # clips need no gradient
    onednn = torch.backends.mkldnn.is_available()
    done = skeleton.Skeleton(step, torch.device("cpu"), torch.float32, onednn)
    computed = sum(left.shape[-2] * right.numel() for _, left, right, _ in done._calls)
    assert computed == 3 * macs - forward[0].macs
    assert done.run().isfinite().all()


@pytest.mark.parity
def test_what_is_measured_and_what_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whether it fits is worked out in seconds, which a tiny model isn't worth.
    monkeypatch.setattr(program("model"), "free_memory", lambda device: None)
    history, output = tmp_path / "history.jsonl", tmp_path / "table.txt"
    words = [*TINY, "--shapes", "2x32", "--schemes", "joint_space_time", "--square", "64"]
    words += ["--precisions", "fp32", "tf32", "int8", "--history", str(history)]
    program("model").main([*words, "--output", str(output)])
    text = capsys.readouterr().out
    assert text == output.read_text()
    for said in (
        "forward, joint_space_time, tf32: not measured: a number format of GPUs",
        "train, joint_space_time, int8: not measured: int8 is for inference",
        "forward, joint_space_time, int8: no skeleton and no large product in int8",
        "by a measured product of 64²",
    ):
        assert said in text
    lines = program("model_parts.history").read(history)
    measured = {(line["setting"]["what"], line["setting"]["precision"]): line for line in lines}
    assert set(measured) == {("forward", "fp32"), ("forward", "int8"), ("train", "fp32")}
    results = measured["train", "fp32"]["results"]
    assert {"timesformer", "transformers", "skeleton", "square"} <= set(results)
    for found in results.values():
        assert len(found["seconds"]) == len(found["cpu_seconds"]) == 2
    ours = results["timesformer"]
    weights = ours["held"] / 2  # the other half is momentum
    assert ours["peak"] > weights  # gradients, to begin with
    assert "transformers, same precision" in measured["forward", "int8"]["results"]


def test_int8_is_of_all_linear_layers() -> None:
    entrants = program("model_parts.entrants")
    setting = entrants.Setting("forward", "axial", 2, 32, "int8", 1, "tiny")
    model = entrants.make_ours(setting.cfg(torch.device("cpu")))
    layers = sum(isinstance(m, torch.nn.Linear) for m in model.modules())
    made = entrants.quantised(model).modules()
    assert layers == sum("quantized" in type(m).__module__ and hasattr(m, "weight") for m in made)


@pytest.mark.parity
def test_models_that_compute_different_things_are_not_timed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = program("model")

    class Other(model.Theirs):
        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            return super().forward(clips) + 1e-3

    monkeypatch.setattr(model, "Theirs", Other)
    history = tmp_path / "history.jsonl"
    words = [*TINY, "--shapes", "2x32", "--schemes", "space_only", "--history", str(history)]
    with pytest.raises(UserError, match=r"space_only: logits differ .* by 1\.0e-03"):
        model.main(words)
    assert not history.exists()
    setting = model.Setting("forward", "axial", 2, 32, "fp32", 1, "tiny")
    none, why = model.same_model(torch.nn.Linear(1, 1), setting, torch.device("cpu"))
    assert (none, why) == (None, "it has no axial")


def line(commit: str, seconds: list[float], machine: str = "cpu") -> str:
    setting = {"what": "forward", "scheme": "axial", "frames": 8, "side": 224}
    results = {
        "timesformer": {"seconds": seconds, "cpu_seconds": seconds},
        "skeleton": {"seconds": [1.0] * len(seconds), "cpu_seconds": [1.0] * len(seconds)},
    }
    return json.dumps({
        "commit": commit, "dirty": False, "machine": {"device": machine, "threads": 1},
        "setting": setting | {"precision": "fp32", "batch": 1}, "results": results,
    })  # fmt: skip


def test_two_commits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history, picture = tmp_path / "history.jsonl", tmp_path / "speed.png"
    noise = [0.9, 1.0, 1.1, 1.0, 0.95, 1.05, 1.0]
    history.write_text("\n".join([
        line("a" * 40, [2 * x for x in noise]), line("b" * 40, noise),
        line("c" * 40, [1.02 * x for x in reversed(noise)]), line("d" * 40, noise, "other"),
    ]))  # fmt: skip
    compare = program("compare").main
    for words, verdict in (("aaa bbb", "faster"), ("bbb aaa", "SLOWER"), ("bbb ccc", "noise")):
        compare([*words.split(), "--history", str(history)])
        assert capsys.readouterr().out.splitlines()[-1].endswith(verdict)
    with pytest.raises(UserError, match="nothing was measured of both on one machine"):
        compare(["aaa", "ddd", "--history", str(history)])
    with pytest.raises(UserError, match=r"eee: not one commit .*aaaaaaaaa, bbbbbbbbb"):
        compare(["aaa", "eee", "--history", str(history)])
    compare(["--plot", str(picture), "--history", str(history)])
    assert picture.stat().st_size > 5000
    history.write_text(line("a" * 40, noise) + "\n{}\n")
    with pytest.raises(UserError, match=r"history\.jsonl:2: not a line of model\.py"):
        compare(["aaa", "bbb", "--history", str(history)])


def test_cost_over_tokens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cost_curve, picture = program("cost_curve"), tmp_path / "curve.png"
    monkeypatch.setattr(base, "FEW", 1)
    forward, lengths = Mlp.forward, set()
    monkeypatch.setattr(Mlp, "forward", lambda mlp, x: lengths.add(x.shape[1]) or forward(mlp, x))
    assert cost_curve.exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    words = ["--frames", "2", "4", "--sides", "32", "64", "--schemes", "axial", "space_only"]
    cost_curve.main([*TINY, *words, "--plot", str(picture)])
    rows = capsys.readouterr().out.splitlines()
    for shape in ("2x32", "2x64", "4x32"):
        assert sum(row.startswith(shape) for row in rows) == 3  # seconds, memory, multiply-adds
    assert min(lengths) == 1 + 4  # never CLS alone: one block stands for any of twelve
    assert picture.stat().st_size > 5000
