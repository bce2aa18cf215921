from __future__ import annotations

from timesformer.clips.sampling import ViewGrid


def test_view_numbers() -> None:
    grid = ViewGrid(num_clips=2, num_crops=3)
    assert grid.num_views == 6
    assert grid.clips == [(0, 2), (1, 2)]
    places = [(t, s) for t in range(2) for s in range(3)]
    assert [grid.view(t, s) for t, s in places] == list(range(6))
    assert [grid.split(v) for v in range(6)] == places
