"""What other models reach, as papers print it (Tables 5 to 8, and those of later papers)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from timesformer.studies.competitors import DATA_SETS, Result, results_on
from timesformer.studies.registry import register_picture, register_table
from timesformer.utils.text import format_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTE = """\
Top-1 and top-5 in %. TFLOPs: 10¹² multiply-adds of all views, as these papers count. Views: clips ×
crops of a video. M: millions of parameters. A row is what its source (arXiv) prints, of its own
models or of others; nothing here was measured by us. Papers differ in training, clips and views."""


@register_table("competitors")
def competitors_table(data_set: str = "") -> str:
    """Accuracy and cost of other models, with sources (Tables 5 to 8).

    Args:
        data_set: one of `DATA_SETS`; all without.
    """
    sections = [
        f"{DATA_SETS[name]}\n\n{_rows(results)}" for name, results in _asked(data_set).items()
    ]
    return "\n\n".join((*sections, NOTE))


@register_picture("competitors")
def competitors_picture(data_set: str = "") -> Figure | None:
    """Draw accuracy against cost; None where no source gives the cost of other models.

    Args:
        data_set: see `competitors_table`.
    """
    from timesformer.visualization.published import Model, Panel, draw_published  # matplotlib

    panels = []
    for name, results in _asked(data_set).items():
        models = [
            Model(_label(r), r.tflops, r.top1, r.kind) for r in results if r.tflops is not None
        ]
        if {model.kind for model in models} - {"timesformer"}:
            panels.append(Panel(DATA_SETS[name], models))
    return draw_published(panels) if panels else None


def _asked(data_set: str) -> dict[str, list[Result]]:
    return results_on([data_set] if data_set else DATA_SETS)


def _label(result: Result) -> str:
    name, _, hours = result.model.partition(" (")
    name = name if hours.endswith("hours)") else result.model
    known = result.pretraining in ("", "none", "K400")
    return name if known else f"{name} ({result.pretraining})"


def _rows(results: Sequence[Result]) -> str:
    def cell(value: float | None, digits: int) -> str:
        return "–" if value is None else f"{value:.{digits}f}"

    rows: list[tuple[str, ...]] = [
        ("model", "pretraining", "top-1", "top-5", "TFLOPs", "views", "M", "source")
    ]
    for r in results:
        numbers = (cell(r.top1, 1), cell(r.top5, 1), cell(r.tflops, 2))
        source = f"{r.source}, {r.table}"
        rows.append(
            (r.model, r.pretraining or "–", *numbers, r.views or "–", cell(r.parameters, 1), source)
        )
    return format_table(rows)
