"""Whether a map tells what matters: what the model says while patches go, or come, in its order.

Deletion and insertion (Petsiuk et al., arXiv 1806.07421, §3.2): patches turn grey from the most
important one on, and the faster the probability of the class falls, the better; or they appear on
grey, and the faster it rises, the better. A map is worth something if it beats a random order and
one that goes outwards from the centre of the frame, where cameras point anyway.

Shape letters: T frames, H×W pixels, h×w patches of a frame, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from timesformer.utils.logging import progress

STEPS = 16
RANDOM_ORDERS = 4
ROUNDING = 1e-5  # of a score: what beats another by less is as good as it


@dataclass(frozen=True)
class Curves:
    """Probability of the class after each of STEPS equal parts, from none to all patches.

    Attributes:
        deletion: while patches go.
        insertion: while they come.
    """

    deletion: list[float]
    insertion: list[float]

    @property
    def score(self) -> float:
        """Area under insertion less that under deletion, from -1 to 1; higher is better."""
        return _area(self.insertion) - _area(self.deletion)


@dataclass(frozen=True)
class Faithfulness:
    """The curves of a map beside those of maps that know nothing.

    Attributes:
        map: its own.
        random: the mean over RANDOM_ORDERS random orders.
        centre: the nearer to the centre of its frame, the earlier.
    """

    map: Curves
    random: Curves
    centre: Curves

    @property
    def curves(self) -> dict[str, Curves]:
        """All of them by name, the map's own first."""
        return {"map": self.map, "random": self.random, "centre": self.centre}

    @property
    def is_faithful(self) -> bool:
        """Whether the map beats chance and the centre."""
        return not self._unbeaten()

    @property
    def verdict(self) -> str:
        """Say it in words."""
        if unbeaten := self._unbeaten():
            return f"not faithful: doesn't beat {' or '.join(unbeaten)}"
        return "faithful: beats a random order and the centre"

    def _unbeaten(self) -> list[str]:
        others = {"a random order": self.random, "the centre": self.centre}
        return [
            name for name, other in others.items() if not self.map.score > other.score + ROUNDING
        ]

    def to_json(self) -> dict[str, object]:
        """Return curves, scores and verdict as plain values."""
        scores = {name: curves.score for name, curves in self.curves.items()}
        return asdict(self) | {"scores": scores, "verdict": self.verdict}


@torch.no_grad()
def faithfulness(
    model: nn.Module, clip: Tensor, relevance: Tensor, label: int, batch: int = 4, seed: int = 0
) -> Faithfulness:
    """Hold a map against the model that it is about.

    Args:
        model: in eval mode.
        clip: (3, T, H, W), as the model takes it.
        relevance: (T, h, w). One that is the same everywhere has no order: its curves are random's.
        label: the class.
        batch: clips in a forward pass.
        seed: of the random orders.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.rand(relevance.shape, generator=generator) for _ in range(RANDOM_ORDERS)]
    even = bool(relevance.min() == relevance.max())
    orders = [*noise, centre_prior(*relevance.shape), *([] if even else [relevance])]
    grey = clip.mean((1, 2, 3), keepdim=True).expand_as(clip)
    nothing, everything = _probabilities(model, iter((grey, clip)), label, batch)
    found = [
        _curves(model, clip, each, label, batch, (nothing, everything))
        for each in progress(orders, "how far to believe")
    ]
    random = found[:RANDOM_ORDERS]
    chance = Curves(_mean([c.deletion for c in random]), _mean([c.insertion for c in random]))
    return Faithfulness(chance if even else found[-1], chance, found[RANDOM_ORDERS])


def centre_prior(T: int, h: int, w: int) -> Tensor:
    """Relevance (T, h, w) that falls with the distance from the centre of the frame."""
    rows = (torch.arange(h) - (h - 1) / 2) / h
    columns = (torch.arange(w) - (w - 1) / 2) / w
    return -(rows[:, None] ** 2 + columns**2).expand(T, h, w)


def _curves(
    model: nn.Module,
    clip: Tensor,
    relevance: Tensor,
    label: int,
    batch: int,
    ends: tuple[float, float],
) -> Curves:
    """Ask about the steps between the ends, which are alike in every order: all grey, the clip."""
    rank = relevance.flatten().argsort(descending=True, stable=True).argsort()
    share = (rank.view(relevance.shape).to(clip.device) + 0.5) / relevance.numel()
    grey = clip.mean((1, 2, 3), keepdim=True)

    def steps() -> Iterator[Tensor]:
        for i in range(1, STEPS):
            gone = _to_pixels(share < i / STEPS, clip.shape)
            yield torch.where(gone, grey, clip)
            yield torch.where(gone, clip, grey)

    found = _probabilities(model, steps(), label, batch)
    nothing, everything = ends
    return Curves([everything, *found[::2], nothing], [nothing, *found[1::2], everything])


def _probabilities(
    model: nn.Module, clips: Iterator[Tensor], label: int, batch: int
) -> list[float]:
    """Return the class's probability for each clip; only those of a forward pass are there."""
    found: list[float] = []
    while some := [*islice(clips, batch)]:
        found += model(torch.stack(some)).softmax(1)[:, label].tolist()
    return found


def _to_pixels(patches: Tensor, shape: torch.Size) -> Tensor:
    """(T, h, w) -> (1, T, H, W)."""
    _, T, H, W = shape
    size = (T, H, W)
    return nn.functional.interpolate(patches[None, None].float(), size, mode="nearest")[0] > 0.5


def _mean(rows: list[list[float]]) -> list[float]:
    return torch.tensor(rows, dtype=torch.float64).mean(0).tolist()


def _area(curve: list[float]) -> float:
    return float(torch.trapezoid(torch.tensor(curve, dtype=torch.float64)) / (len(curve) - 1))
