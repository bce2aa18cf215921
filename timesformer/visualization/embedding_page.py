"""A page of its own for the points of `embedding`: a video shows itself where the mouse is.

Everything is in the one file: no network, no other files.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from timesformer.visualization.embedding import Classes, Panel

MANY = 5_000  # videos; of more, middle frames are smaller, or a browser takes long
SMALL = 48  # pixels of their longer side then

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 14px sans-serif; color: #1f2328; margin: 1.5rem; }}
h1 {{ font-size: 1.3rem; }}
h2 {{ font-size: 1rem; margin: 0 0 .2rem; }}
p {{ color: #6e7781; margin: .1rem 0; font-size: .85rem; }}
#panels, #classes {{ display: flex; flex-wrap: wrap; gap: .4rem 1.5rem; }}
#classes {{ max-height: 12rem; overflow-y: auto; margin: 1rem 0; gap: .2rem .9rem; }}
canvas {{ border: 1px solid #d8dee4; width: 400px; height: 400px; }}
button {{ border: 0; background: none; padding: 0; font: inherit; cursor: pointer; }}
button.off {{ opacity: .3; }}
#tip {{ position: fixed; display: none; background: white; border: 1px solid #8c959f;
       padding: .4rem; max-width: 18rem; pointer-events: none; overflow-wrap: anywhere; }}
#tip img {{ display: block; min-width: 128px; image-rendering: auto; }}
</style>
<h1>{title}</h1>
<div id="panels"></div>
<div id="classes"></div>
{notes}
<div id="tip"><img alt="middle frame"><b></b><div></div><p></p></div>
<script id="data" type="application/json">{data}</script>
<script>
{script}
</script>
</html>
"""

SCRIPT = """
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");
const [picture, className, path, note] = tip.children;
const SIDE = 400, EDGE = 12, REACH = 14;
const off = new Set();  // labels that are faded
let chosen = -1;
let order = data.labels.map((_, i) => i);

function shown(i) { return !off.has(data.labels[i]); }

function place(panel, i) {
  const room = SIDE - 2 * EDGE;
  return [EDGE + room * panel.points[i][0], EDGE + room * (1 - panel.points[i][1])];
}

function draw() {
  const radius = Math.min(5, Math.max(2, 60 / Math.sqrt(data.labels.length)));
  for (const panel of data.panels) {
    const pen = panel.canvas.getContext("2d");
    pen.setTransform(panel.scale, 0, 0, panel.scale, 0, 0);
    pen.clearRect(0, 0, SIDE, SIDE);
    for (const i of order) {
      const [x, y] = place(panel, i);
      pen.globalAlpha = shown(i) ? 0.85 : 0.06;
      pen.fillStyle = data.colours[data.labels[i]];
      pen.beginPath();
      pen.arc(x, y, radius, 0, 2 * Math.PI);
      pen.fill();
    }
    pen.globalAlpha = 1;
    if (chosen >= 0) {
      const [x, y] = place(panel, chosen);
      pen.strokeStyle = "#1f2328";
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(x, y, radius + 4, 0, 2 * Math.PI);
      pen.stroke();
    }
  }
}

function nearest(panel, x, y) {
  let best = -1, least = REACH * REACH;
  for (let i = 0; i < data.labels.length; i++) {
    if (!shown(i)) continue;
    const [px, py] = place(panel, i);
    const distance = (px - x) ** 2 + (py - y) ** 2;
    if (distance < least) { least = distance; best = i; }
  }
  return best;
}

function point(panel, event) {
  const box = panel.canvas.getBoundingClientRect();
  const x = (event.clientX - box.left) * SIDE / box.width;
  const y = (event.clientY - box.top) * SIDE / box.height;
  const found = nearest(panel, x, y);
  if (found !== chosen) { chosen = found; draw(); }
  if (found < 0) { tip.style.display = "none"; return; }
  picture.src = "data:image/jpeg;base64," + data.thumbnails[found];
  className.textContent = data.names[data.labels[found]] || "";
  path.textContent = data.paths[found];
  note.textContent = data.damage[found] ? "damaged: " + data.damage[found] : "";
  tip.style.display = "block";
  const left = event.clientX + 16, top = event.clientY + 16;
  tip.style.left = Math.max(0, Math.min(left, window.innerWidth - tip.offsetWidth - 8)) + "px";
  tip.style.top = Math.max(0, Math.min(top, window.innerHeight - tip.offsetHeight - 8)) + "px";
}

function leave() { chosen = -1; tip.style.display = "none"; draw(); }

function element(kind, text) {
  const made = document.createElement(kind);
  made.textContent = text;
  return made;
}

for (const panel of data.panels) {
  const box = document.createElement("div");
  box.append(element("h2", panel.name), ...panel.lines.map((line) => element("p", line)));
  panel.canvas = document.createElement("canvas");
  panel.scale = window.devicePixelRatio || 1;
  panel.canvas.width = panel.canvas.height = SIDE * panel.scale;
  panel.canvas.addEventListener("mousemove", (event) => point(panel, event));
  panel.canvas.addEventListener("mouseleave", leave);
  box.append(panel.canvas);
  document.getElementById("panels").append(box);
}
for (const label of data.present) {
  const button = element("button", "\\u25cf " + data.names[label]);
  button.style.color = data.colours[label];
  button.title = "show this class alone; once more: all classes";
  button.addEventListener("click", () => {
    const alone = off.size === data.present.length - 1 && !off.has(label);
    off.clear();
    if (!alone) for (const other of data.present) if (other !== label) off.add(other);
    for (const each of document.getElementById("classes").children)
      each.className = off.has(each.label) ? "off" : "";
    draw();
  });
  button.label = label;
  document.getElementById("classes").append(button);
}
draw();
"""


def page(
    panels: Sequence[Panel],
    classes: Classes,
    thumbnails: Sequence[bytes],
    paths: Sequence[str],
    damage: Sequence[str],
    title: str,
    notes: Sequence[str],
) -> str:
    """Return an HTML page where hovering over a point shows the video, in all panels alike.

    Args:
        panels: the models.
        classes: give the points their colours.
        thumbnails: JPEG files of the middle frames (V,).
        paths: of the videos (V,).
        damage: what is wrong with each file, or "" (V,).
        title: headline.
        notes: what stands at the bottom.
    """
    present = classes.present
    small = len(paths) > MANY
    data: dict[str, Any] = {
        "panels": [
            {"name": p.name, "lines": list(p.lines), "points": _within(p.coordinates)}
            for p in panels
        ],
        "labels": classes.labels.tolist(),
        "present": present,
        "names": {label: classes.name(label) for label in present},
        "colours": classes.colours,
        "paths": list(paths),
        "damage": list(damage),
        "thumbnails": [base64.b64encode(_shrunk(t) if small else t).decode() for t in thumbnails],
    }
    # A name may hold "</script>"; and one that isn't text is in ASCII here.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    lines = "\n".join(f"<p>{_text(note)}</p>" for note in notes)
    return PAGE.format(title=_text(title), notes=lines, data=text, script=SCRIPT.strip())


def _text(words: str) -> str:
    return html.escape(words.encode("utf-8", "backslashreplace").decode())


def _within(coordinates: NDArray[np.floating]) -> list[list[float]]:
    """Scale coordinates (V, 2) into [0, 1]."""
    low, high = coordinates.min(0), coordinates.max(0)
    scaled = (coordinates - low) / np.maximum(high - low, 1e-12)
    return [[round(float(x), 4), round(float(y), 4)] for x, y in scaled]


def _shrunk(jpeg: bytes) -> bytes:
    with Image.open(io.BytesIO(jpeg)) as picture, io.BytesIO() as file:
        picture.thumbnail((SMALL, SMALL))
        picture.save(file, format="JPEG", quality=60)
        return file.getvalue()
