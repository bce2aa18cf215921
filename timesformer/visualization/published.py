"""What papers print of many models: accuracy against cost, every point with its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from timesformer.visualization.style import COLOURS, FAINT, GRID, INK, OTHER, blank_figure

SIZE = (11.5, 8.5)  # inches of a panel
FAR_BELOW = 20.0  # points below the best: named in the title, as it would press all others together
LOOKS = {  # colour, marker, size, what the legend calls it
    "convolution": (OTHER, "s", 30, "convolutions"),
    "transformer": (COLOURS[0], "o", 34, "transformers"),
    "timesformer": (COLOURS[1], "*", 150, "TimeSformer, as its paper prints it"),
}
# Where a name may stand beside its point, in points, the nearest first; far ones have a line to it.
PLACES = sorted(
    (
        *((dx, dy, "left") for dx in (7, 18, 34) for dy in range(-54, 55, 9)),
        *((-dx, dy, "right") for dx in (7, 18, 34) for dy in range(-54, 55, 9)),
        *((0, dy, "center") for dy in (*range(-54, -8, 9), *range(9, 55, 9))),
    ),
    key=lambda place: (place[0] ** 2 + place[1] ** 2, -place[0], place[1]),
)
SIDES = {"left": 0.0, "center": 0.5, "right": 1.0}  # how much of the name is left of the place
NEAR = 12  # points


class Model(NamedTuple):
    """A point: a model's name, 10¹² multiply-adds, accuracy in % and one of `LOOKS`."""

    name: str
    cost: float
    accuracy: float
    kind: str


class Panel(NamedTuple):
    """A data set and its models."""

    title: str
    models: Sequence[Model]


def draw_published(panels: Sequence[Panel]) -> Figure:
    """Draw accuracy against cost, a panel a data set, one below the other."""
    width, height = SIZE
    figure = blank_figure(width, height * len(panels))
    for at, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(len(panels), 1, at)
        _draw(axes, panel)
    figure.tight_layout(pad=1.5, h_pad=3.0)
    for axes, panel in zip(figure.axes, panels, strict=True):
        _write_names(axes, panel.models)
    return figure


def _draw(axes: Axes, panel: Panel) -> None:
    shown, below = _shown(panel.models)
    for kind, (colour, marker, size, _) in LOOKS.items():
        of_kind = [m for m in shown if m.kind == kind]
        axes.scatter(
            [m.cost for m in of_kind], [m.accuracy for m in of_kind],
            s=size, c=colour, marker=marker, linewidths=0, zorder=3,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.margins(x=0.09, y=0.07)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.set_xlabel("10¹² multiply-adds of all views of a video", color=INK, loc="right")
    axes.set_ylabel("top-1, %", color=INK)
    title = f"{panel.title}: what papers print. None of it was measured here"
    if below:
        names = ", ".join(f"{m.name} {m.accuracy:.1f}" for m in below)
        title += f"\nfar below, not drawn: {names}"
    axes.set_title(title, loc="left", color=INK, fontsize=12)
    axes.grid(color=GRID, linewidth=0.6, zorder=0)
    axes.tick_params(colors=FAINT, which="both")
    for spine in axes.spines.values():
        spine.set_visible(False)
    kinds = {model.kind for model in shown}
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", markersize=size**0.5, label=name)
        for kind, (colour, marker, size, name) in LOOKS.items()
        if kind in kinds
    ]
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0, -0.06), ncols=len(handles),
        frameon=False, fontsize=9, borderaxespad=0.8,
    )  # fmt: skip


def _shown(models: Sequence[Model]) -> tuple[list[Model], list[Model]]:
    """Part the models into those that are drawn and those far below."""
    least = max(model.accuracy for model in models) - FAR_BELOW
    return [m for m in models if m.accuracy >= least], [m for m in models if m.accuracy < least]


def _write_names(axes: Axes, models: Sequence[Model]) -> None:
    """Write every name where it covers the fewest points and names."""
    shown, _ = _shown(models)
    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    frame = axes.get_window_extent(renderer)
    points = axes.transData.transform([(m.cost, m.accuracy) for m in shown])
    taken = [Bbox([(x - 6, y - 6), (x + 6, y + 6)]) for x, y in points]

    def covered(box: Bbox) -> int:
        outside = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0
        return 100 * outside + sum(box.overlaps(other) for other in taken)

    pixel = axes.figure.dpi / 72
    order = sorted(zip(shown, points, strict=True), key=lambda of: of[0].kind != "timesformer")
    for model, (x, y) in order:
        size = Text.get_window_extent(name := _name(axes, model, *PLACES[0]), renderer)
        name.remove()
        boxes = {
            (dx, dy, side): Bbox.from_bounds(
                x + dx * pixel - SIDES[side] * size.width,
                y + dy * pixel - size.height / 2,
                size.width,
                size.height,
            )
            for dx, dy, side in PLACES
        }
        free = (place for place, box in boxes.items() if not covered(box))
        best = next(free, None) or min(boxes, key=lambda place: covered(boxes[place]))
        _name(axes, model, *best)
        taken.append(boxes[best])


def _name(axes: Axes, model: Model, dx: int, dy: int, side: str) -> Annotation:
    ours = model.kind == "timesformer"
    line = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
    return axes.annotate(
        model.name, (model.cost, model.accuracy), (dx, dy), textcoords="offset points",
        ha=side, va="center", fontsize=8.5 if ours else 7.5, color=INK,
        fontweight="bold" if ours else "normal", zorder=4, annotation_clip=False,
        arrowprops=line if dx**2 + dy**2 > NEAR**2 else None, parse_math=False,
    )  # fmt: skip
