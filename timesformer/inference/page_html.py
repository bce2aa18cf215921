"""The parts of a page that are written by hand: what comes of videos, as HTML.

Pictures are in it, so nothing lies in a folder and nothing is fetched.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from timesformer.inference.prediction import Guess, Prediction
from timesformer.inference.shown import Answer, SeenClip
from timesformer.utils.text import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 224  # pixels of a frame's longer side, at most
DPI = 90  # of a timeline
# Colours are those of Gradio's theme, which knows whether the page is dark.
STYLE = """<style>
footer, #video button[aria-label^="Trim"] { display: none !important; }
#video video { max-height: 300px; }
.tsf.tsf { color: var(--body-text-color); font-size: 15px; line-height: 1.45; }
.tsf.tsf h1 { font-size: clamp(19px, 4vw, 24px); font-weight: 650; margin: 4px 0 2px;
  overflow-wrap: anywhere; }
.tsf.tsf h2 { font-size: 16px; font-weight: 650; margin: 6px 0 8px; }
.tsf.tsf .faint { opacity: 0.7; font-size: 13px; margin: 4px 0; }
.tsf .row { display: grid; grid-template-columns: 1fr auto; gap: 0 12px; margin: 0 0 11px; }
.tsf .row .name { overflow-wrap: anywhere; }
.tsf .chance { font-variant-numeric: tabular-nums; white-space: nowrap; }
.tsf .track { grid-column: 1 / -1; height: 9px; border-radius: 5px; overflow: hidden;
  background: var(--border-color-primary); }
.tsf .fill { height: 100%; min-width: 2px; border-radius: 5px; background: #2f6fbb; }
.tsf .row.first .name, .tsf .row.first .chance { font-weight: 650; font-size: 18px; }
.tsf .rest .fill { background: #8fb4dc; }
.tsf .note { border-left: 4px solid #e08a1e; padding: 7px 12px; margin: 8px 0;
  background: var(--background-fill-secondary); overflow-wrap: anywhere; }
.tsf .note.error { border-color: #cf222e; }
.tsf .strip { display: grid; grid-template-columns: repeat(auto-fill,
  minmax(max(76px, (100% - 56px) / 8), 1fr));
  gap: 8px; max-height: 420px; overflow-y: auto; }
.tsf.tsf figure { margin: 0; }
.tsf.tsf figure img { width: 100%; display: block; border-radius: 4px; margin: 0; }
.tsf.tsf figcaption { font-size: 12px; opacity: 0.7; text-align: center; margin: 2px 0 0; }
.tsf .wide { overflow-x: auto; }
.tsf.tsf .wide img { min-width: 720px; width: 100%; border-radius: 4px; margin: 0; }
.tsf.tsf tr { border: 0; }
.tsf.tsf table { width: 100%; border-collapse: collapse; border: 0; table-layout: fixed; }
.tsf.tsf th, .tsf.tsf td { text-align: left; padding: 7px 12px 7px 0; vertical-align: top;
  border: 0; border-bottom: 1px solid var(--border-color-primary); overflow-wrap: break-word; }
.tsf.tsf th { font-weight: 650; }
.tsf.tsf td.wrong { color: #cf222e; }
@media (max-width: 640px) {
  .tsf.tsf .next { display: none; }
  .tsf.tsf table { table-layout: auto; }
  .tsf.tsf td:first-child { overflow-wrap: anywhere; min-width: 7em; }
}
</style>"""


def block(*parts: str) -> str:
    """Return parts as one piece that `STYLE` knows; "" of nothing."""
    inside = "".join(parts)
    return f'<div class="tsf">{inside}</div>' if inside else ""


def heading(title: str, lines: Iterable[str]) -> str:
    """Return the head of the page."""
    told = "".join(f'<p class="faint">{_text(line)}</p>' for line in lines)
    return STYLE + block(f"<h1>{_text(title)}</h1>", told)


def hint(words: str) -> str:
    """Return what stands where an answer will be."""
    return block(f'<p class="faint">{_text(words)}</p>')


def answer(given: Answer) -> str:
    """Return the likeliest classes of a video as bars, or why there are none."""
    found = given.prediction
    if found.error is not None:
        return error_note(found.error)
    rows = []
    for i, guess in enumerate(found.top):
        chance = f"{100 * guess.prob:.1f}"
        rows.append(
            f'<div class="row {"rest" if i else "first"}"><span class="name">{_text(guess.name)}'
            f'</span><span class="chance">{chance} %</span>'
            f'<div class="track"><div class="fill" style="width: {chance}%"></div></div></div>'
        )
    damage = f"used as decoded: {found.damage}" if found.damage else ""
    return block(*rows, _note(damage))


def error_note(reason: str) -> str:
    """Return why there is no answer."""
    return block(f'<div class="note error" role="alert">No answer: {_text(reason)}</div>')


def clip_strip(given: Answer) -> str:
    """Return the frames that the model saw, each with its second; "" if there are none."""
    if given.clip is None:
        return ""
    frames = "".join(
        f'<figure><img alt="frame at {moment:.2f} s" src="{_picture(frame)}">'
        f"<figcaption>{moment:.2f} s</figcaption></figure>"
        for frame, moment in zip(given.clip.frames, given.clip.moments, strict=True)
    )
    return block(
        "<h2>What the model saw</h2>",
        f'<div class="strip">{frames}</div>',
        f'<p class="faint">{_text(_views(given.clip, given.prediction))}</p>',
    )


def _views(clip: SeenClip, prediction: Prediction) -> str:
    """Say which part of what the model saw is shown."""
    clips, crops = prediction.testing.num_clips, prediction.testing.num_crops
    said = (
        f"{counted(len(clip.frames), 'frame')}, {clip.moments[0]:.2f} to {clip.moments[-1]:.2f} s"
    )
    if clips > 1:
        said = f"clip {clip.number} of {clips}, {said}"
    return said + (f"; the middle one of {crops} crops" if crops > 1 else "")


def timeline_block(figure: Figure) -> str:
    """Return a timeline."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    source = _source(file.getvalue(), "png")
    picture = f'<img alt="classes along the time of the video" src="{source}">'
    return block("<h2>Over time</h2>", f'<div class="wide">{picture}</div>')


def table(names: Sequence[str], found: Sequence[Prediction]) -> str:
    """Return a row a video: its likeliest two classes, or why there are none.

    Args:
        names: of all files.
        found: of the first ones; the others wait.
    """
    rows = []
    for i, name in enumerate(names):
        cells = f"<td>{_text(name)}</td>"
        if i >= len(found):
            cells += '<td class="faint" colspan="2">waiting</td>'
        elif (error := found[i].error) is not None:
            cells += f'<td class="wrong" colspan="2">{_text(error)}</td>'
        else:
            first, *others = map(_guess, found[i].top)
            damage = f" (used as decoded: {_text(found[i].damage)})" if found[i].damage else ""
            cells += f'<td>{first}{damage}</td><td class="next">{"".join(others[:1])}</td>'
        rows.append(f"<tr>{cells}</tr>")
    head = '<tr><th>file</th><th>answer</th><th class="next">or</th></tr>'
    done = f"{len(found)} of {counted(len(names), 'video')}"
    return block(f"<table>{head}{''.join(rows)}</table>", f'<p class="faint">{done}</p>')


def _guess(guess: Guess) -> str:
    return f'{_text(guess.name)} <span class="chance">{100 * guess.prob:.1f} %</span>'


def _note(words: str) -> str:
    return f'<div class="note">{_text(words)}</div>' if words else ""


def _text(words: str) -> str:
    """Return words as they are, whatever a browser or Gradio's templates would make of them."""
    safe = escape(words)
    return safe.replace("$", "&#36;").replace("{", "&#123;").replace("}", "&#125;")


def _picture(frame: NDArray[np.uint8]) -> str:
    """Return a frame (H, W, 3) as a source of an image; a small one sharp rather than smooth."""
    picture, file = Image.fromarray(frame), io.BytesIO()
    factor = SIDE / max(picture.size)
    if factor < 1:
        picture.thumbnail((SIDE, SIDE))
    elif factor >= 2:
        times = int(factor)
        picture = picture.resize(
            (picture.width * times, picture.height * times), Image.Resampling.NEAREST
        )
    picture.save(file, format="JPEG", quality=88)
    return _source(file.getvalue(), "jpeg")


def _source(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
