"""Which patch positions training keeps of a clip: the same in all frames, so tubes in time.

Arithmetic alone: what is drawn is a function of the generators that are handed in.

Letters: B clips, h×w patches of a frame, N = h·w, M positions that are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class PatchGrid(NamedTuple):
    """The patches of a frame, as a model sees them.

    Attributes:
        height, width: in patches.
        any_positions: the model takes any set of positions. False: it has to be rows × columns,
            since its attention depends on which patches lie in a row, a column or a half.
    """

    height: int
    width: int
    any_positions: bool


class Tubes(NamedTuple):
    """The positions that are kept of each clip of a batch.

    Attributes:
        positions: (B, M), ascending, row-major in the h×w patches of a frame.
        height, width: the grid that they make; their product is M. 1×M where they are any set.
    """

    positions: Tensor
    height: int
    width: int


def kept_shape(grid: PatchGrid, share: float) -> tuple[int, int]:
    """Return the (height, width) that is kept of a grid, for a share of it above 0.

    It is one row of round(N · share), at least 1; where it has to be rows × columns, about as large
    a share of either as of the other.
    """
    h, w, any_positions = grid
    wanted = h * w * share
    if any_positions:
        return 1, max(1, round(wanted))
    rows = min(h, max(1, round(h * math.sqrt(share))))
    return rows, min(w, max(1, round(wanted / rows)))


def draw_tubes(grid: PatchGrid, share: float, rngs: Iterable[np.random.Generator]) -> Tubes:
    """Draw the positions that are kept, of each clip by its own generator.

    Args:
        grid: what they are chosen from.
        share: of it, above 0 and at most 1; see `kept_shape`.
        rngs: one a clip.
    """
    h, w, any_positions = grid
    rows, columns = kept_shape(grid, share)
    drawn = []
    for rng in rngs:
        if any_positions:
            drawn.append(np.sort(rng.permutation(h * w)[:columns]))
        else:
            y, x = (np.sort(rng.permutation(n)[:k]) for n, k in ((h, rows), (w, columns)))
            drawn.append((y[:, None] * w + x).reshape(-1))
    return Tubes(torch.from_numpy(np.stack(drawn)), rows, columns)
