"""Predictions as files: a table for people, JSON for programs, arrays for numpy.

Letters: V videos, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from timesformer.inference.prediction import Prediction
from timesformer.utils.files import write_csv, write_text
from timesformer.utils.npz import write_npz

SUFFIXES = (".csv", ".json", ".npz")


def write_predictions(path: Path, found: Sequence[Prediction], checkpoint: str) -> None:
    """Write predictions; the file is whole, or the one before stays.

    `.csv`: a row a video with path, views, damage, error, and the likeliest classes with their
    probabilities. `.json`: a list of what `Prediction.to_json` gives. `.npz`: scores and
    probabilities (V, K), NaN where a video can't be read, paths, damage and error (V,),
    class_names (K,) or (0,), views and checkpoint.

    Args:
        path: the file; its suffix says which.
        found: of every video, read or not.
        checkpoint: what the model was loaded from.

    Raises:
        OSError: it can't be written.
    """
    if path.suffix == ".csv":
        write_csv(path, _rows(found))
    elif path.suffix == ".json":
        lines = ",\n".join(json_line(prediction) for prediction in found)
        write_text(path, f"[\n{lines}\n]\n")
    else:
        classes = max((len(p.scores) for p in found if p.scores is not None), default=0)
        blank = np.full(classes, np.nan, np.float32)
        scores = [blank if p.scores is None else p.scores.numpy() for p in found]
        chances = [blank if p.probabilities is None else p.probabilities.numpy() for p in found]
        write_npz(
            path,
            scores=np.stack(scores),
            probabilities=np.stack(chances),
            paths=np.array([p.path for p in found]),
            damage=np.array([p.damage for p in found]),
            error=np.array([p.error or "" for p in found]),
            class_names=np.array(found[0].class_names, dtype=str),
            views=np.array(found[0].testing.views),
            checkpoint=np.array(checkpoint),
        )


def json_line(prediction: Prediction) -> str:
    """Return a prediction as one line of JSON; names that aren't text are told by escapes."""
    return json.dumps(prediction.to_json())


def _rows(found: Sequence[Prediction]) -> Iterator[list[str]]:
    """Yield the rows of the `.csv`, the header first."""
    most = max(len(prediction.top) for prediction in found)
    header = [column for i in range(most) for column in (f"top{i + 1}", f"prob{i + 1}")]
    yield ["path", "views", "damage", "error", *header]
    for prediction in found:
        cells = [cell for guess in prediction.top for cell in (guess.name, f"{guess.prob:.6f}")]
        cells += [""] * (2 * most - len(cells))
        told = [prediction.testing.views, prediction.damage, prediction.error or ""]
        yield [prediction.path, *told, *cells]
