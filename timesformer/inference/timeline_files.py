"""A timeline as files: tables, subtitles, arrays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from timesformer.inference.segments import Segment
from timesformer.inference.timeline import Timeline
from timesformer.utils.errors import in_one_line
from timesformer.utils.files import write_csv, write_text
from timesformer.utils.npz import write_npz

CSV, JSON, NPZ, SRT, VTT = (
    "segments.csv",
    "segments.json",
    "scores.npz",
    "segments.srt",
    "segments.vtt",
)
FILES = (CSV, JSON, NPZ, SRT, VTT)
JOINER = "\u2060"  # what is on either side of it belongs together


def write_timeline(folder: Path, found: Timeline, checkpoint: str) -> None:
    """Write a timeline; each file is whole, or the one before stays.

    segments.csv: a row a segment with video, start, end, label, confidence: the form of true
    segments. segments.json: what `Timeline.to_json` gives. scores.npz: scores and probabilities
    (n, K), start and end of the windows (n,), class_names (K,), checkpoint and video. segments.srt
    and segments.vtt: subtitles.

    Args:
        folder: is there.
        found: the timeline.
        checkpoint: what the model was loaded from.

    Raises:
        OSError: one can't be written.
    """
    write_csv(folder / CSV, _rows(found))
    write_text(folder / JSON, json.dumps(found.to_json(), indent=1) + "\n")
    write_text(folder / SRT, subtitles(found.segments, ",", ""))
    write_text(folder / VTT, subtitles(found.segments, ".", "WEBVTT\n\n"))
    write_npz(
        folder / NPZ,
        scores=found.scores,
        probabilities=found.probabilities,
        start=found.starts,
        end=found.ends,
        class_names=np.array(found.names, dtype=str),
        checkpoint=np.array(checkpoint),
        video=np.array(found.path),
    )


def _rows(found: Timeline) -> Iterator[list[object]]:
    yield ["video", "start", "end", "label", "confidence"]
    name = Path(found.path).name
    for s in found.segments:
        yield [name, f"{s.start:.3f}", f"{s.end:.3f}", s.name, f"{s.confidence:.6f}"]


def subtitles(segments: list[Segment], point: str, head: str) -> str:
    """Return subtitles: SubRip's with "," before the milliseconds, WebVTT's with ".".

    Segments at the same time are subtitles at the same time, which players put above each other.
    """
    cues = []
    for i, s in enumerate(segments, 1):
        times = f"{_clock(s.start, point)} --> {_clock(s.end, point)}"
        text = (_in_webvtt if head else _in_subrip)(in_one_line(s.name))
        cues.append(f"{i}\n{times}\n{text} {100 * s.confidence:.0f} %\n")
    return head + "\n".join(cues)


def _in_webvtt(name: str) -> str:
    """Return a name of which nothing is taken for markup, or for the arrow of a time."""
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _in_subrip(name: str) -> str:
    """Return the same for SubRip, which has no escapes.

    A joiner of no width breaks up tags; what stands in braces players take for commands anyway.
    """
    whole = name.replace("<", f"<{JOINER}").replace("{", "(").replace("}", ")")
    return whole.replace("-->", "->")


def _clock(seconds: float, point: str) -> str:
    """Return a moment as subtitles have it: 01:02:03,004."""
    total = round(seconds * 1000)
    minutes, rest = divmod(total, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"
