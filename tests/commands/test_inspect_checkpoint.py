"""`timesformer inspect-checkpoint`: sound, damaged, equal, different; of any age and layout."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import complaint_of, small_cfg

from timesformer.commands.convert import main as convert
from timesformer.commands.inspect_checkpoint import main
from timesformer.engine.train import train
from timesformer.utils.checkpoint import get_path_to_checkpoint, read_checkpoint, write_checkpoint


@pytest.fixture(scope="module")
def run(synthetic_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(small_cfg(synthetic_dir, folder, TEST__ENABLE=False))
    return folder


def said(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    status = 0
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        status = int(end.code or 0)
    return status, capsys.readouterr().out


def changed(path: Path, to: Path, **changes: Any) -> Path:
    content = read_checkpoint(path)
    for name, change in changes.items():
        content[name] = change(content[name])
    write_checkpoint(to, content)
    return to


def test_a_run_is_described(run, capsys):
    status, text = said(capsys, run)
    assert status == 0
    newest = get_path_to_checkpoint(run, 2)
    for part in (
        *(f"{newest}\n", "sound, SHA-256 ", "of a run, after epoch 2", "divided_space_time"),
        *("39,726 numbers in", "float32", "optimizer: adamw, exp_avg, exp_avg_sq, step"),
        *("all numbers are finite", "classes: moving left,", "training list: SHA-256"),
        "TIMESFORMER.EMBED_DIM: 24",
    ):
        assert part in text, text
    status, text = said(capsys, newest, "--json")
    (about,) = json.loads(text)["sources"]
    assert (status, about["bytes"]) == (0, newest.stat().st_size)
    assert about["architecture"]["depth"] == 2


def test_damage_is_found(run, tmp_path, capsys):
    path = get_path_to_checkpoint(tmp_path, 1)
    path.parent.mkdir()
    whole = get_path_to_checkpoint(run, 1).read_bytes()
    path.write_bytes(whole)
    assert said(capsys, tmp_path)[0] == 0
    newer = get_path_to_checkpoint(tmp_path, 2)
    for damaged in (
        *(whole[:-1], whole[:1000], whole[:4985], b""),  # torch looks before a file's beginning
        whole[:2000] + bytes([whole[2000] ^ 4]) + whole[2001:],
        whole[:-80] + b"T" + whole[-79:],  # it carries no digest any more
    ):
        newer.write_bytes(damaged)
        status, text = said(capsys, newer)
        assert (status, text.startswith(f"{newer}: ")) == (1, True), text
        status, text = said(capsys, tmp_path)  # the run has a sound one, and that is described
        assert status == 1
        assert f"{newer}: " in text
        assert "of a run, after epoch 1" in text
        assert said(capsys, newer, path)[0] == 1
    path.unlink()
    status, text = said(capsys, tmp_path)
    assert (status, "all 1 checkpoints of this run are damaged" in text) == (1, True), text


def test_what_is_not_there_is_a_complaint(tmp_path):
    assert "no such weights file" in complaint_of(main, tmp_path / "none.pyth")
    assert "holds no weights" in complaint_of(main, tmp_path)
    assert "no such weights file" in complaint_of(main, "x" * 300)


def test_two_are_compared(run, tmp_path, capsys):
    first, path = get_path_to_checkpoint(run, 1), get_path_to_checkpoint(run, 2)
    status, text = said(capsys, path, run)
    assert status == 0
    assert text.endswith(
        "weights: the same to the bit\nwhat the optimizer has gathered: the same to the bit\n"
        "config: the same\nall else: the same\nequal\n"
    )
    assert said(capsys, first, path)[0] == 1

    def moved(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        state["model.head.bias"][2] += 0.5
        return state

    other = changed(
        path, tmp_path / "a.pyth", model_state=moved,
        cfg=lambda text: text.replace("LOG_PERIOD: 1\n", "LOG_PERIOD: 7\n"), epoch=lambda n: n + 1,
    )  # fmt: skip
    status, text = said(capsys, path, other)
    assert status == 1
    assert "weights: 1 differ\n  head.bias: max abs 0.5, 1 of 6 numbers\n" in text
    assert "what the optimizer has gathered: the same to the bit" in text
    assert "all else: 1 differ\n  epoch\n" in text
    assert "numbers: 1 differ\n  LOG_PERIOD: 1 → 7\nthey differ" in text
    status, text = said(capsys, path, other, "--json")
    assert json.loads(text)["differences"]["elsewhere"] == {"LOG_PERIOD": [1, 7]}

    def gathered(state: dict[str, Any]) -> dict[str, Any]:
        state["state"][0]["exp_avg"].mul_(2)
        return state

    other = changed(path, tmp_path / "b.pyth", optimizer_state=gathered)
    assert (
        "gathered beside the weights: 1 differ\n  optimizer_state.state.0.exp_avg: max abs"
        in said(capsys, path, other)[1]
    )
    assert said(capsys, path, other, "--weights")[0] == 0
    elsewhere = changed(
        path, tmp_path / "c.pyth", cfg=lambda t: t.replace("LOG_PERIOD: 1\n", "LOG_PERIOD: 7\n")
    )
    assert said(capsys, path, elsewhere)[0] == 0  # it says nothing about the numbers


def test_signs_of_zeros_and_numbers_that_are_none(run, tmp_path, capsys):
    path = get_path_to_checkpoint(run, 2)

    def filled(value: float) -> Any:
        return lambda state: state | {"model.head.bias": torch.full((6,), value)}

    zero, minus, nan = (
        changed(path, tmp_path / f"{i}.pyth", model_state=filled(value))
        for i, value in enumerate([0.0, -0.0, float("nan")])
    )
    status, text = said(capsys, zero, minus)
    assert (status, "head.bias: by the sign of zeros" in text) == (1, True)
    status, text = said(capsys, nan)
    assert (status, "NOT FINITE: head.bias" in text) == (1, True)
    assert "head.bias: max abs not finite, 6 of 6" in said(capsys, zero, nan)[1]


def test_a_moving_average_is_part_of_it(run, tmp_path, capsys):
    path = get_path_to_checkpoint(run, 2)
    content = read_checkpoint(path)
    average = {name: value + 1 for name, value in content["model_state"].items()}
    both = content | {"ema_state": average, "ema_updates": 1, "use_weights": "raw"}
    write_checkpoint(tmp_path / "a.pyth", both)
    bias = torch.full((6,), float("inf"))
    for name, changes, wanted in (
        ("same", {}, "equal"),
        ("used", {"use_weights": "ema"}, "cls_token: max abs 1, 24 of 24"),
        ("other", {"ema_state": average | {"model.head.bias": bias}}, "ema_state.model.head.bias"),
    ):
        write_checkpoint(tmp_path / "b.pyth", both | changes)
        status, text = said(capsys, tmp_path / "a.pyth", tmp_path / "b.pyth")
        assert (status, wanted in text) == (int(name != "same"), True), text
        assert "there is a moving average" in text
    assert "NOT FINITE: ema_state.model.head.bias" in text


def test_layouts_are_compared_under_the_same_names(run, tmp_path, capsys):
    path = get_path_to_checkpoint(run, 2)
    convert([str(path), str(tmp_path / "hf"), "--to", "hf"])
    capsys.readouterr()
    status, text = said(capsys, path, tmp_path / "hf", "--weights")
    assert (status, text.endswith("weights: the same to the bit\nequal\n")) == (0, True), text


@pytest.mark.parametrize(
    ("name", "model", "numbers"),
    [
        ("divided", "divided_space_time", "12,138"),
        ("vit_tiny", "vit_tiny_patch16_224", "7,717,446"),
        ("factorised_encoder", "vivit_factorised_encoder", ""),
    ],
)
def test_checkpoints_of_earlier_versions(golden, tmp_path, capsys, name, model, numbers):
    path = tmp_path / f"{name}.pyth"
    path.write_bytes(lzma.decompress((golden / "old_checkpoints" / f"{name}.pyth.xz").read_bytes()))
    status, text = said(capsys, path)
    assert (status, model in text, f"weights: {numbers}" in text) == (0, True, True), text
    assert "sound, SHA-256" in text
    assert said(capsys, path, path)[0] == 0
