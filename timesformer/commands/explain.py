r"""Show where a model looks in a video, and how far to believe it.

Of the clip in the middle of each video, DIR gets contact_sheet.png (all frames beside their maps),
overlay.mp4 and overlay.gif, heads.png (which frame looks at which) and maps.npz. Every map is
tested: patches are taken away in its order, and the sheet says whether the model notices it sooner
than with a random order, or one from the centre outwards. Of a folder of videos, DIR gets a folder
for each and index.html.

Example:
  timesformer explain video.mp4 --checkpoint runs/synthetic/divided --method gradient --out where
"""

from __future__ import annotations

import argparse
import html
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from timesformer.explain.videos import ExplainedVideo, explain_video
from timesformer.inference.load import load_models
from timesformer.models.explain.relevance import METHODS, vision_transformer_of
from timesformer.prepare.copies import find_videos
from timesformer.utils.errors import UserError, VideoError
from timesformer.utils.files import make_places, write_text
from timesformer.utils.logging import progress
from timesformer.utils.npz import write_npz
from timesformer.utils.parser import CommandParser, input_path, output_path
from timesformer.utils.run_lock import run_lock
from timesformer.utils.text import class_name, counted, did_you_mean

FILES = ("contact_sheet.png", "overlay.gif", "overlay.mp4", "heads.png", "maps.npz")
PAGE = """<!doctype html>
<meta charset="utf-8"><title>Where it looks</title>
<body style="max-width: 80rem; margin: 2rem auto; font-family: sans-serif">
<h1>Where it looks: {method}</h1>
<p>A picture plays as a film when it is clicked.</p>
{failed}{parts}
</body>
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    usage = "VIDEO|FOLDER --checkpoint WEIGHTS --out DIR [options]"
    parser = CommandParser("explain", __doc__, usage)
    parser.add_argument("video", type=input_path, metavar="VIDEO|FOLDER")
    parser.add_argument("--checkpoint", required=True, metavar="WEIGHTS",
                        help="a file, a run's folder, hf/ORG/NAME, …")  # fmt: skip
    parser.add_argument("--out", required=True, type=output_path, metavar="DIR")
    parser.add_argument("--class", dest="label", metavar="NAME|NUMBER",
                        help="the class to explain (the predicted one)")  # fmt: skip
    parser.add_argument("--method", choices=METHODS, default="rollout",
                        help="rollout (the default) is about no class in particular")  # fmt: skip
    parser.add_sampling_rate()
    args = parser.parse(argv)
    parser.need_positive(args, "--sampling-rate")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Explain one video, or each of a folder; status 1 if some can't be read."""
    args = parse_args(argv)
    # Pictures are an extra: what is missing is told before the work, --help doesn't need it.
    from timesformer.visualization import attention  # noqa: F401

    alone = not args.video.is_dir()
    folder = make_places(args.out, FILES if alone else ("index.html",))
    with run_lock(folder, "--out"):
        explain(args, folder, alone)


def explain(args: argparse.Namespace, folder: Path, alone: bool) -> None:
    """Explain into a folder that is this process's."""
    [model] = load_models([args.checkpoint], args.sampling_rate)
    label = label_of(args.label, model)
    if label is not None and args.method == "rollout":
        raise UserError("--class: rollout is about no class; --method gradient or occlusion is")
    if args.method != "occlusion":
        try:
            vision_transformer_of(model, args.method)
        except ValueError as error:
            raise UserError(f"{args.checkpoint}: {error}") from error
    if alone:
        found = explain_video(model, args.video, args.method, label)
        print(write_all(folder, found, model.class_names))
        return
    sheets: list[Path] = []
    failed: list[VideoError] = []
    videos = [Path(source.path) for source in find_videos(args.video, folder)]
    places = places_of(videos, args.video, folder)
    for path, place in progress([*zip(videos, places, strict=True)], desc="explain"):
        try:
            found = explain_video(model, path, args.method, label)
        except VideoError as error:
            print(f"error: {error}", file=sys.stderr)
            failed.append(error)
            continue
        make_places(place, FILES)
        print(write_all(place, found, model.class_names))
        sheets.append(place / "contact_sheet.png")
    write_text(folder / "index.html", index_page(folder, sheets, args.method, failed))
    print(f"wrote {folder / 'index.html'}")
    if failed:
        print(unread(failed), file=sys.stderr)
        sys.exit(1)


def places_of(videos: Sequence[Path], base: Path, folder: Path) -> list[Path]:
    """Give each video below `base` a folder of its name; its suffix stays where several have it."""
    names = [video.relative_to(base) for video in videos]
    short = [name.with_suffix("") for name in names]
    count = Counter(short) + Counter(names)
    return [
        folder / (name if count[stem] > 1 else stem)
        for name, stem in zip(names, short, strict=True)
    ]


def unread(failed: Sequence[VideoError]) -> str:
    """Say how many videos couldn't be read."""
    return f"{counted(len(failed), 'video')} couldn't be read"


def index_page(
    folder: Path, sheets: Sequence[Path], method: str, failed: Sequence[VideoError] = ()
) -> str:
    """Return a page with all contact sheets, each a link to its overlay, and what is missing."""
    rows = "".join(f"<li>{html.escape(str(error))}</li>\n" for error in failed)
    missing = f"<p>{unread(failed)}:</p>\n<ul>\n{rows}</ul>\n" if failed else ""
    parts = []
    for sheet in sheets:
        place = sheet.parent.relative_to(folder).as_posix()
        source = html.escape(quote(f"{place}/contact_sheet.png"))
        film = html.escape(quote(f"{place}/overlay.mp4"))
        parts.append(
            f'<h2>{html.escape(place)}</h2>\n<a href="{film}"><img src="{source}" width="100%"></a>'
        )
    return PAGE.format(method=html.escape(method), failed=missing, parts="\n".join(parts))


def label_of(text: str | None, model: Any) -> int | None:
    """Return the class that `--class` means.

    Raises:
        UserError: there is no such class.
    """
    if text is None:
        return None
    names = list(model.class_names)
    if text in names:
        return names.index(text)
    classes = model.architecture.num_classes if model.architecture else len(names)
    if text.isdecimal() and int(text) < classes:
        return int(text)
    hint = did_you_mean(text, names)
    raise UserError(f"--class {text}: none of {classes} classes{hint}")


def write_all(folder: Path, found: ExplainedVideo, names: Sequence[str]) -> str:
    """Write everything about a video, and return a line that says what was found."""
    from timesformer.visualization.attention import (
        contact_sheet,
        heads_figure,
        side_by_side,
        write_film,
        write_mp4,
    )
    from timesformer.visualization.style import write_png

    name = class_name(names, found.label)
    what = f"{name} {100 * found.probabilities[found.label]:.0f} %"
    told = found.faithfulness
    curves = {k: (c.deletion, c.insertion) for k, c in told.curves.items()}
    sheet = contact_sheet(
        found.frames, found.maps, found.numbers, f"{what} · {found.method} · {found.path.name}",
        (told.verdict, told.is_faithful), curves,
    )  # fmt: skip
    write_png(folder / "contact_sheet.png", sheet)
    both = side_by_side(found.frames, found.maps)
    write_film(folder / "overlay.gif", both)
    write_mp4(folder / "overlay.mp4", both)
    if found.time_heads is not None:
        write_png(folder / "heads.png", heads_figure(found.time_heads, found.numbers))
    write_maps(folder / "maps.npz", found)
    damage = f" (damaged: {found.damage})" if found.damage else ""
    return f"{found.path}{damage}: {what}; {told.verdict}; {folder / 'contact_sheet.png'}"


def write_maps(path: Path, found: ExplainedVideo) -> None:
    """Write the numbers."""
    write_npz(
        path,
        maps=found.maps,
        frames=np.array(found.numbers),
        importance=found.importance,
        label=found.label,
        probabilities=found.probabilities,
        faithfulness=json.dumps(found.faithfulness.to_json()),
    )
