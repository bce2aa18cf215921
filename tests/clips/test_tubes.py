"""Which patch positions are drawn: how many, of which shape, by the generator alone."""

from __future__ import annotations

import numpy as np
import pytest

from timesformer.clips.tubes import PatchGrid, draw_tubes, kept_shape


@pytest.mark.parametrize(
    ("grid", "share", "shape"),
    [
        (PatchGrid(14, 14, True), 0.5, (1, 98)),
        (PatchGrid(4, 4, True), 0.5, (1, 8)),
        (PatchGrid(4, 4, True), 0.01, (1, 1)),
        (PatchGrid(14, 14, False), 0.5, (10, 10)),
        (PatchGrid(14, 14, False), 0.25, (7, 7)),
        (PatchGrid(2, 8, False), 0.5, (1, 8)),
        (PatchGrid(4, 4, False), 0.01, (1, 1)),
        (PatchGrid(5, 3, False), 1.0, (5, 3)),
    ],
)
def test_shape(grid: PatchGrid, share: float, shape: tuple[int, int]) -> None:
    assert kept_shape(grid, share) == shape


def rngs(*keys: int) -> list[np.random.Generator]:
    return [np.random.default_rng(key) for key in keys]


@pytest.mark.parametrize("any_positions", [True, False])
def test_positions_are_ascending_and_of_each_clip_alone(any_positions: bool) -> None:
    grid = PatchGrid(6, 5, any_positions)
    positions, h, w = draw_tubes(grid, 0.5, rngs(1, 2, 3))
    assert positions.shape == (3, h * w)
    assert (positions.diff(dim=1) > 0).all()
    assert 0 <= positions.min() <= positions.max() < 30
    assert len({tuple(row) for row in positions.tolist()}) == 3
    assert draw_tubes(grid, 0.5, rngs(3)).positions.equal(positions[2:])
    if not any_positions:
        rows, columns = (part.view(3, h, w) for part in (positions // 5, positions % 5))
        assert (rows == rows[..., :1]).all()
        assert (columns == columns[:, :1]).all()


def test_every_position_is_kept_equally_often() -> None:
    for any_positions in (True, False):
        positions, h, w = draw_tubes(PatchGrid(4, 6, any_positions), 0.5, rngs(*range(2000)))
        share = np.bincount(positions.flatten(), minlength=24) / 2000
        np.testing.assert_allclose(share, h * w / 24, atol=0.05)
