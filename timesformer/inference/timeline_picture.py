"""A timeline as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from timesformer.inference.detection import Truth
from timesformer.inference.timeline import Timeline
from timesformer.utils.errors import in_one_line
from timesformer.utils.text import counted
from timesformer.visualization.timeline import Shown, clock, timeline_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def timeline_picture(found: Timeline, truth: Sequence[Truth] = ()) -> Figure:
    """Draw a timeline, with the true segments where they are known."""
    claimed = sum(segment.end - segment.start for segment in found.segments)
    long = clock(round(found.duration, 2), found.duration)
    said = (
        f"{long} · {counted(len(found.segments), 'segment')}, "
        f"{claimed:.0f} s claimed · areas: probability (dotted: claimed from "
        f"{found.rules.enter:g}); bars: segments" + ("; black: true segments" if truth else "")
    )
    shown = Shown(
        title=in_one_line(Path(found.path).name),
        said=said + (f" · used as decoded: {found.damage}" if found.damage else ""),
        duration=found.duration,
        moments=(found.starts + found.ends) / 2,
        chances=found.smoothed,
        names=found.names,
        bars=[(s.start, s.end, s.label) for s in found.segments],
        level=found.rules.enter,
        pictures=found.thumbnails,
        truth=[(one.start, one.end, one.label) for one in truth],
    )
    return timeline_figure(shown)
