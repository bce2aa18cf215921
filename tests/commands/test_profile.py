"""`timesformer profile` as a user runs it."""

from __future__ import annotations

import pytest
from small_run import ROOT, complaint_of

from timesformer.commands.profile import main
from timesformer.config.defaults import get_cfg
from timesformer.engine.fits import WAYS, fits
from timesformer.engine.needs import Needs
from timesformer.models.attention import ATTENTION_REGISTRY
from timesformer.models.timing import Timing

KINETICS = ROOT / "configs" / "Kinetics"
SYNTHETIC = "Synthetic/TimeSformer_divST_8_64"


def table(text: str) -> dict[str, list[str]]:
    rows = text.split("\n\n")[0].splitlines()
    return {line.split()[0]: line.split()[1:] for line in rows[1:]}


def test_table_of_all_schemes(capsys):
    """The recipe asks for 8 GPUs; profiling needs none."""
    recipe = str(KINETICS / "TimeSformer_divST_8x32_224.yaml")
    main(["--cfg", recipe])
    rows = table(capsys.readouterr().out)
    divided = ["121,566,352", "195.8", "391.7", "0.587", "463.7", "1,236.2"]
    assert rows == {"divided_space_time": divided}
    main(["--cfg", recipe, "--all-schemes", "TIMESFORMER.DEPTH", "1"])
    rows = table(capsys.readouterr().out)
    assert rows.keys() == {name for name, _ in ATTENTION_REGISTRY}
    macs = {name: float(cells[1]) for name, cells in rows.items()}
    assert macs["space_only"] < macs["joint_space_time"] < macs["divided_space_time"]


def test_options_change_the_model(capsys):
    recipe = str(KINETICS / "TimeSformer_divST_16x16_448.yaml")
    options = {"TEST.NUM_SPATIAL_CROPS": "1", "MODEL.NUM_CLASSES": "174", "DATA.CLASS_NAMES": "''"}
    main(["--cfg", recipe, *(word for pair in options.items() for word in pair)])
    rows = table(capsys.readouterr().out)
    assert rows["divided_space_time"][:4] == ["121,850,286", "1,702.7", "3,405.4", "1.7"]


def test_a_mistake_is_one_line(capsys):
    recipe = str(KINETICS / "TimeSformer_divST_8x32_224.yaml")
    printed = complaint_of(main, "--cfg", recipe, "TIMESFORMER.ATTENTION_TYPE", "joint")
    assert printed.startswith("error: TIMESFORMER.ATTENTION_TYPE 'joint'")
    assert (capsys.readouterr().out, printed.count("\n")) == ("", 1)


SMALL = ["NUM_GPUS", "0", "DATA.TRAIN_CROP_SIZE", "32", "DATA.TEST_CROP_SIZE", "32"]


def test_time_is_measured_and_said_of_a_whole_test(capsys, monkeypatch):
    recipe = str(ROOT / "configs/Synthetic/TimeSformer_divST_8_64.yaml")
    passes = (0.5, 9.0, 0.4)
    monkeypatch.setattr(
        "timesformer.commands.profile.time_views",
        lambda model, view, *, batch, repeats, **_: Timing(
            passes[:repeats], passes[:repeats], batch, "CPU", 2
        ),
    )
    main(["--cfg", recipe, "--time", "--batch", "2", "--repeats", "3", *SMALL])
    printed = capsys.readouterr().out
    header, row = printed.split("\n\n")[2].strip().splitlines()
    cells = dict(zip(header.split(), row.split(), strict=True))
    assert (cells["s/view"], cells["views"], cells["s/video"]) == ("0.25", "3", "0.75")
    assert cells["videos/s"] == "1.33"
    macs = float(table(printed)["divided_space_time"][1]) * 1e9
    assert float(cells["TMACs/video"]) == pytest.approx(3 * macs / 1e12, rel=0.02)
    assert float(cells["GMACs/s"]) == pytest.approx(macs / 0.25 / 1e9, rel=0.02)
    assert "median of 3 forward passes of 2 views after a warm-up; CPU, 2 threads" in printed


def test_time_is_really_measured(capsys):
    recipe = str(ROOT / "configs/Synthetic/TimeSformer_divST_8_64.yaml")
    main(["--cfg", recipe, "--time", "--repeats", "1", *SMALL])
    assert "median of 1 forward pass of 1 view after a warm-up; CPU" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch", "0"], "--batch and --repeats must be at least 1"),
        (["NUM_GPUS", "1"], "no usable GPU to measure on; NUM_GPUS 0"),
    ],
)
def test_what_cannot_be_measured(options, message, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    recipe = str(ROOT / "configs/Synthetic/TimeSformer_divST_8_64.yaml")
    assert message in complaint_of(main, "--cfg", recipe, "--time", *options)


def test_how_to_measure_goes_with_measuring():
    recipe = "Synthetic/TimeSformer_divST_8_64"
    assert "--batch: goes with --time" in complaint_of(main, "--cfg", recipe, "--batch", 2)


def test_what_doesnt_go_with_a_config_isnt_shown_to_fit(monkeypatch):
    monkeypatch.setattr("timesformer.engine.fits.training_needs", lambda _: Needs(1, 1, 1, 1, 1))
    cfg, way = get_cfg(), "bf16, adamw8bit"
    assert [row[0] for row in fits(cfg)[1:]] == [*WAYS]
    cfg.TRAIN.SHARDING = "fsdp"
    assert [row[0] for row in fits(cfg)[1:]] == [name for name in WAYS if name != way]


def test_what_fits(capsys):
    """More fits into more memory; what is rounded, recomputed or frozen takes less."""
    main(["--cfg", SYNTHETIC, "--fits"])
    text, notes = capsys.readouterr().out.split("\n\n")
    cells = [(line[: line.index("  ")], line.split()[-6:]) for line in text.splitlines()[1:]]
    clips = {name: [int(n.replace(",", "")) for n in row] for name, row in cells}
    assert {"as configured", "bf16, LoRA of rank 8", "bf16, head alone"} <= clips.keys()
    assert all(row == sorted(row) for row in clips.values())
    assert clips["as configured"] < clips["TRAIN.AMP bf16"] < clips["bf16, ACT_CHECKPOINT"]
    assert clips["TRAIN.AMP bf16"] < clips["bf16, head alone"]
    assert "8 frames of 64×64" in notes
    assert "doesn't go with --fits" in complaint_of(main, "--cfg", SYNTHETIC, "--fits", "--time")
    budget = ("TRAIN.ACTIVATION_GIB", "1")
    assert "TRAIN.ACTIVATION_GIB" in complaint_of(main, "--cfg", SYNTHETIC, "--fits", *budget)
