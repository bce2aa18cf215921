"""From what runs left to numbers and pictures."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

import timesformer.studies.catalogue  # noqa: F401  (registers studies)
from timesformer.studies.figure import _mark, write_figure
from timesformer.studies.plan import Plan, make_plan
from timesformer.studies.registry import STUDY_REGISTRY, find
from timesformer.studies.results import Row, clip_accuracy, read_rows, spread
from timesformer.studies.study import DATA
from timesformer.utils.errors import UserError
from timesformer.visualization.studies import Mark, Panel, draw_study

DRAWN = [("schemes", "synthetic"), ("schemes", "kinetics"), ("frames", "synthetic"),
         ("temporal-layers", "synthetic"), ("parameters", "kinetics")]  # fmt: skip


def plan_of(name: str, data: str, seeds: int, out: Path) -> Plan:
    return make_plan(name, find(STUDY_REGISTRY, "", name)(), DATA[data], seeds, [], out)


def words_of(figure: Figure) -> set[str]:
    return {text.get_text() for text in figure.findobj(Text)}


@pytest.mark.parametrize(("name", "data"), DRAWN)
def test_a_figure_and_its_numbers(name: str, data: str, tmp_path: Path) -> None:
    """Of each kind; one run of three is missing of the first point, all of the second."""
    plan = plan_of(name, data, 3, tmp_path)
    rows = [
        row._replace(values=(60.0 + i, 61.0 + i, 63.0 + i)) for i, row in enumerate(read_rows(plan))
    ]
    rows[0] = rows[0]._replace(values=(60.0, None, 63.0))
    rows[1] = rows[1]._replace(values=(None, None, None))
    numbers, picture = write_figure(plan, rows, data, tmp_path)
    assert picture.stat().st_size > 10_000
    with numbers.open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["n_seeds"] for row in table[:3]] == ["2", "0", "3"]
    assert (table[0]["mean"], table[1]["mean"]) == ("61.5", "")
    assert float(table[2]["high"]) - float(table[2]["mean"]) == pytest.approx(3.7946, abs=1e-3)
    assert {row["study"] for row in table} == {name}
    assert all(row["version"] for row in table)
    assert len({(row["data"], row["variant"]) for row in table}) == len(table)
    for row, point in zip(table, plan.points, strict=True):
        assert row["runs"].split() == [run.name for run in point.runs]
        assert row["paper"] == ("" if (paper := point.variant.paper) is None else f"{paper:.6g}")


def test_words_of_a_figure() -> None:
    marks = [Mark("a", 70.0, 69.0, 71.0, 3, 0, 78.0), Mark("b", None, None, None, 0, 3, 59.0)]
    panel = Panel("Synthetic", marks, "K400", False, {"chance": 6.25})
    words = words_of(draw_study("Schemes", [panel], source="Table 1"))
    assert {"Schemes", "Synthetic", "paper, K400", "a", "b", "70.0", "78.0", "chance"} <= words
    assert {"missing", "3 runs missing"} <= words
    assert "mean and 95 % interval of 3 seeds; hollow: Table 1" in words
    same = panel._replace(same=True, marks=[marks[0]._replace(seeds=1, low=None, high=None)])
    words = words_of(draw_study("Schemes", [same]))
    assert "one seed each: no interval" in words
    assert "paper, K400" not in words


def lines_of(axes: Axes) -> list[tuple[str, list[tuple[float, float]]]]:
    """Marker and points of each line."""
    return [(str(line.get_markerfacecolor()), [*map(tuple, line.get_xydata())])
            for line in axes.lines]  # fmt: skip


def test_rows_stand_where_their_numbers_are() -> None:
    marks = [Mark("a", 70.0, 69.0, 72.0, 3, 0, 78.0), Mark("b", 60.0, None, None, 1, 0, 59.0)]
    (axes,) = draw_study("Schemes", [Panel("K400", marks, "K400", True, {})]).axes
    drawn = lines_of(axes)
    assert [points for face, points in drawn if face == "none"] == [[(78.0, 0)], [(59.0, 1)]]
    means = [[(70.0, 0)], [(60.0, 1)]]
    assert [points for face, points in drawn if points in means and face != "none"] == means
    (bars,) = axes.containers
    (ends,) = bars[2][0].get_segments()
    assert ends.tolist() == [[69.0, 0.0], [72.0, 0.0]]
    apart = draw_study("Schemes", [Panel("Synthetic", marks, "K400", False, {})]).axes
    assert not [points for face, points in lines_of(apart[0]) if face == "none"]
    assert [points for _, points in lines_of(apart[1])] == [[(78.0, 0)], [(59.0, 1)]]


def test_lines_go_through_their_numbers() -> None:
    marks = [Mark("", 70.0, 69.0, 72.0, 3, 0, 78.0, 8.0, "divided", 5.0),
             Mark("", 75.0, None, None, 1, 0, None, 16.0, "divided", 9.0)]  # fmt: skip
    axes, costs = draw_study("Frames", [Panel("K400", marks, "K400", True, {})], "frames").axes
    points = [points for _, points in lines_of(axes)]
    assert points == [[(8, 70), (16, 75)], [(8, 69), (8, 72)], [(8, 78)]]
    assert lines_of(axes)[2][0] == "none"
    assert [points for _, points in lines_of(costs)] == [[(8, 5), (16, 9)]]


def test_a_mark_has_the_numbers_of_its_row(tmp_path: Path) -> None:
    row = read_rows(plan_of("frames", "kinetics", 2, tmp_path))[0]
    mark = _mark(row._replace(values=(60.0, 62.0)))
    variant = row.point.variant
    assert (mark.mean, mark.seeds, mark.missing, mark.paper) == (61.0, 2, 0, 78.0)
    assert mark.low is not None
    assert mark.high is not None
    assert mark.low < 61.0 < mark.high
    assert (mark.label, mark.series, mark.x) == (variant.label, "divided", 8)
    assert mark.gmacs == pytest.approx(196, abs=1)


def test_places_on_an_axis() -> None:
    marks = [
        Mark("", 70.0 + x, None, None, 1, 0, None, x, series, gmacs=x)
        for series in ("divided", "joint")
        for x in (8.0, 16.0, 96.0)
    ]
    panel = Panel("K400", marks, "K400", True, {})
    words = words_of(draw_study("Frames", [panel], "frames", x_log=True))
    assert {"frames", "8", "16", "96", "divided", "joint", "cost"} <= words


def test_clips_are_spread_over_those_of_the_test() -> None:
    assert spread(1, 10) == [5]
    assert spread(2, 10) == [2, 7]
    assert spread(10, 10) == list(range(10))
    assert all(len({*spread(n, 10)}) == n for n in range(1, 11))


def test_accuracy_of_some_clips(tmp_path: Path) -> None:
    """Of two videos, the one is right in its later clips alone, the other in all."""
    plan = plan_of("test-clips", "synthetic", 1, tmp_path)
    run = plan.points[0].runs[0]
    with pytest.raises(UserError, match="no scores of each view"):
        clip_accuracy(run, 1)
    scores = np.zeros((2, 10, 16), np.float32)
    scores[0, :5, 3] = 1.0
    scores[0, 5:, 4] = 1.5
    scores[1, :, 7] = 1.0
    run.folder.mkdir(parents=True)
    np.savez(run.folder / "scores.npz", per_view=scores, labels=np.array([4, 7]))
    assert clip_accuracy(run, 1) == 100.0  # clip 5
    assert clip_accuracy(run, 10) == 100.0
    scores[0, 5:, 4] = 0.9
    np.savez(run.folder / "scores.npz", per_view=scores, labels=np.array([4, 7]))
    assert clip_accuracy(run, 1) == 100.0
    assert clip_accuracy(run, 10) == 50.0
    scores[1] = np.nan  # it couldn't be read: wrong
    np.savez(run.folder / "scores.npz", per_view=scores, labels=np.array([4, 0]))
    assert clip_accuracy(run, 1) == 50.0
    for shape in ((2, 7, 16), (3, 10, 16), (2, 16)):  # videos, views, classes
        np.savez(run.folder / "scores.npz", per_view=np.zeros(shape), labels=np.array([4, 0]))
        with pytest.raises(UserError, match="not of 10 views of 2 videos; delete "):
            clip_accuracy(run, 1)


def test_rows_without_runs(tmp_path: Path) -> None:
    (row, *_) = read_rows(plan_of("positions", "ssv2", 2, tmp_path))
    assert row == Row(row.point, (None, None), None, None)
    assert (row.missing, row.estimate) == (2, None)
