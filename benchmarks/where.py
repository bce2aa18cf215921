"""How well maps of where a model looks point at the object, and how far they can be believed.

Trained models of the five schemes on the temporal twin of Synthetic, and each untrained, by the
three methods: see docs/explain.md. The models are those of

    timesformer reproduce --figure schemes --out runs/reproduce

Example:
  python benchmarks/where.py runs/reproduce --data data/synthetic_temporal --videos 32
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from numpy.typing import NDArray
from tqdm import tqdm

import timesformer.studies.catalogue  # noqa: F401  (registers studies)
from timesformer.explain.proof import Proof, prove
from timesformer.models.create import from_pretrained
from timesformer.models.explain.relevance import METHODS
from timesformer.prepare.synthetic_writer import MANIFEST, SyntheticSpec
from timesformer.studies.plan import Run, make_plan
from timesformer.studies.registry import STUDY_REGISTRY, find
from timesformer.studies.study import SYNTHETIC
from timesformer.utils.text import format_table

HEADER = ("scheme", "method", "on the object", "pointing", "map", "random", "centre", "faithful")


def runs_of(out: Path) -> dict[str, Run]:
    """Return the run of each scheme on the temporal twin, seed 0."""
    data = [panel for panel in SYNTHETIC if panel.name == "temporal"]
    study = find(STUDY_REGISTRY, "--figure", "schemes")()
    plan = make_plan("schemes", study, data, 1, (), out)
    return {point.variant.label: point.runs[0] for point in plan.points}


def scenes(folder: Path, count: int) -> Iterator[tuple[Path, NDArray]]:
    """Yield test videos, spread over the split, and where their objects are."""
    made = json.loads((folder / MANIFEST).read_text())
    made.pop("format")
    spec = SyntheticSpec(**made)
    for i in range(count):
        index = i * spec.test // count + i % 16  # all classes
        yield folder / spec.path("test", index), spec.scene("test", index)[1]


def cells(proof: Proof) -> tuple[str, ...]:
    """Return the numbers of a row."""
    scores = (proof.score, proof.score_random, proof.score_centre)
    places = (proof.place.energy, proof.place.pointing, *scores)
    return (*(f"{x:.3f}" for x in places), f"{100 * proof.faithful:.0f} %")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="--out of `timesformer reproduce`")
    parser.add_argument("--data", type=Path, required=True, help="the temporal twin")
    parser.add_argument("--videos", type=int, default=32)
    args = parser.parse_args()
    videos = list(scenes(args.data, args.videos))
    rows: list[tuple[str, ...]] = [HEADER]
    for label, run in tqdm(runs_of(args.out).items(), disable=None):
        for trained in (True, False):
            for method in METHODS:
                torch.manual_seed(0)
                model = from_pretrained(str(run.folder))
                if not trained:
                    forget(model)
                proof = prove(model, videos, method)
                name = label if trained else f"{label}, untrained"
                rows.append((name, method, *cells(proof)))
    place = proof.place
    chance = (
        f"chance: {place.energy_chance:.3f} on the object, {place.pointing_chance:.3f} pointing"
    )
    print(f"{format_table(rows)}\n\n{args.videos} test videos of {args.data.name}; {chance}")


def forget(model: torch.nn.Module) -> None:
    """Give a model random matrices and embeddings; biases and scales of norms stay as trained."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.trunc_normal_(parameter, std=parameter.shape[-1] ** -0.5)


if __name__ == "__main__":
    main()
