"""What is written about features: pictures, a page and numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timesformer.embed.features import BlindModelError, Features, in_common
from timesformer.embed.projection import directions, project
from timesformer.embed.scores import FOLDS, LEAST, NEIGHBOURS, Scores, nearest, score
from timesformer.embed.sources import Videos, chosen
from timesformer.utils.errors import UserError
from timesformer.utils.files import write_csv, write_text
from timesformer.utils.npz import write_npz
from timesformer.utils.text import counted
from timesformer.visualization.embedding import Classes, Panel, neighbours_sheet, scatter
from timesformer.visualization.embedding_page import page
from timesformer.visualization.style import write_png

QUERIES = 6  # videos whose neighbours are drawn


def write_report(
    folder: Path,
    found: Mapping[str, Features],
    videos: Videos,
    kept: NDArray[np.int64],
    method: str = "tsne",
    seed: int = 0,
    blind: Mapping[str, str] | None = None,
) -> None:
    """Write pictures, page and numbers, and print the scores.

    Args:
        folder: where.
        found: features of the same videos, by the model's name; see `in_common`.
        videos: these, and perhaps others.
        kept: their numbers (V,).
        method: tsne or pca.
        seed: of t-SNE and the probe's folds.
        blind: why models aren't among them, by name.

    Raises:
        UserError: there are too few videos, or a model makes the same of all.
    """
    labels = videos.labels[kept]
    classes, paths = Classes(labels, videos.names), [videos.records[i].path for i in kept]
    panels, table, means = [], {}, ""
    queries = chosen(videos.records.take(kept.tolist()), QUERIES)
    for name, features in found.items():
        try:
            coordinates, means, plane = project(features.features, method, seed)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        scored = score(features.features, labels, seed) if videos.labelled else None
        count = f"{features.features.shape[1]} features"
        lines = [f"{count} · {plane}" if plane else count]
        if scored:
            table[name] = scored
            lines.insert(0, scored.text)
            print(f"{name}: {scored.text}")
        panels.append(Panel(name, coordinates, lines, nearest(features.features, of=queries)))
    title = f"{means.partition(',')[0]} of {videos.described(labels)} ({videos.source})"
    left_out = next((scored.left_out for scored in table.values()), 0)
    notes = remarks(means, videos.labelled, bool(table), left_out)
    if unread := len(videos.records) - len(kept):
        notes.append(f"{counted(unread, 'video')} couldn't be read")
    notes += [f"{name} is left out: {why}" for name, why in (blind or {}).items()]
    first = next(iter(found.values()))
    nearby = f"Nearest videos ({videos.source})"
    sheet = neighbours_sheet(panels, queries, first.thumbnails, short(paths), classes, nearby)
    write_png(folder / f"{method}.png", scatter(panels, classes, title, notes))
    write_png(folder / "neighbours.png", sheet)
    text = page(panels, classes, first.thumbnails, paths, first.damage, title, notes)
    write_text(folder / "index.html", text)
    rows = [(name, *(f"{value:.6g}" for value in astuple(s))) for name, s in table.items()]
    write_csv(folder / "scores.csv", [("checkpoint", *(f.name for f in fields(Scores))), *rows])
    write_features(folder / "features.npz", found, panels, classes, paths)


def in_view(
    found: Mapping[str, Features], videos: int
) -> tuple[dict[str, Features], NDArray[np.int64], dict[str, str]]:
    """Keep the models that see something, and the videos that all of these have.

    Args:
        found: features by the model's name.
        videos: that were to be read.

    Returns:
        The models' features of these videos, the videos' numbers, and why others see nothing.

    Raises:
        UserError: each of several models has read videos, but none that all of them have.
    """
    blind = {
        name: f"none of {counted(videos, 'video')} can be read"
        for name, features in found.items()
        if not len(features.index)
    }
    shared = {name: features for name, features in found.items() if name not in blind}
    kept = np.empty(0, np.int64)
    if shared:
        shared, kept = in_common(shared)
        if not len(kept):
            raise UserError(f"there is no video that {' and '.join(shared)} can all read")
    for name, features in shared.items():
        try:
            directions(features.features)
        except BlindModelError as error:
            blind[name] = str(error)
    return {name: f for name, f in shared.items() if name not in blind}, kept, blind


def short(paths: Sequence[str]) -> list[str]:
    """Leave out the folder that all paths are in."""
    folder = os.path.dirname(os.path.commonprefix(paths))  # noqa: PTH120, RUF071  (and that folder)
    return [path[len(folder) :].lstrip("/\\") for path in paths]


def remarks(means: str, labelled: bool, scored: bool, left_out: int) -> list[str]:
    """Say what the picture and its numbers are made of."""
    if not labelled:
        return [f"{means}; without labels there are no scores"]
    if not scored:
        return [f"{means}; no scores: they need two classes of {LEAST} videos or more"]
    protocol = (
        f"silhouette by cosine; majority of {NEIGHBOURS} nearest by cosine, each video left out; "
        f"linear probe on {FOLDS} folds; chance: the largest class"
    )
    few = f"{counted(left_out, 'video')} of classes with fewer than {LEAST} left out of the numbers"
    notes = [f"{means}; numbers are of the features, not of this picture", protocol]
    return [*notes, few] if left_out else notes


def write_features(
    path: Path,
    found: Mapping[str, Features],
    panels: Sequence[Panel],
    classes: Classes,
    paths: Sequence[str],
) -> None:
    """Write the numbers; of several models each has its own features and coordinates.

    They are features_1, coordinates_1, features_2, … in the order of `checkpoints`.
    """
    own: dict[str, Any] = {}
    for i, (features, panel) in enumerate(zip(found.values(), panels, strict=True), 1):
        end = f"_{i}" if len(panels) > 1 else ""
        own |= {f"features{end}": features.features, f"coordinates{end}": panel.coordinates}
    write_npz(
        path,
        **own,
        paths=np.array(paths),
        labels=classes.labels,
        class_names=np.array(classes.names, str),
        checkpoints=np.array([*found]),
    )
