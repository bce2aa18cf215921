"""`timesformer profile` as a user runs it."""

from __future__ import annotations

from small_run import ROOT, complaint_of

from timesformer.commands.profile import main
from timesformer.models.attention import ATTENTION_REGISTRY

KINETICS = ROOT / "configs" / "Kinetics"


def table(text: str) -> dict[str, list[str]]:
    rows = text.split("\n\n")[0].splitlines()
    return {line.split()[0]: line.split()[1:] for line in rows[1:]}


def test_table_of_all_schemes(capsys):
    """The recipe asks for 8 GPUs; profiling needs none."""
    recipe = str(KINETICS / "TimeSformer_divST_8x32_224.yaml")
    main(["--cfg", recipe])
    rows = table(capsys.readouterr().out)
    divided = ["121,566,352", "195.8", "391.7", "0.587", "463.7", "1,285.9"]
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
