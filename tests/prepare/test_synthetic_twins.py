"""The twins: the same videos for two questions, and what a model can reach by what it sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from timesformer.clips.sampling import RateSampler
from timesformer.config.defaults import get_cfg
from timesformer.datasets.build import build_dataset
from timesformer.prepare import synthetic_twins as twins
from timesformer.prepare.synthetic_writer import SyntheticSpec, write_dataset
from timesformer.utils.errors import UserError

RECIPES = Path(__file__).parents[2] / "configs/Synthetic"
STATIC, TEMPORAL = (
    SyntheticSpec(seed=3, train=256, val=256, test=256, kind=kind)
    for kind in ("static", "temporal")
)


def bag(frames: Iterable[NDArray[np.uint8]]) -> list[bytes]:
    """The frames without their order."""
    return sorted(frame.tobytes() for frame in frames)


def test_the_twins_are_the_same_videos() -> None:
    for split, index in (("train", 7), ("val", 40), ("test", 13)):
        static, temporal = STATIC.scene(split, index), TEMPORAL.scene(split, index)
        np.testing.assert_array_equal(static[0], temporal[0])
        np.testing.assert_array_equal(static[1], temporal[1])


@pytest.mark.parametrize("split", ["train", "test"])
def test_looks_and_orders_say_nothing_about_each_other(split: str) -> None:
    pairs = Counter((STATIC.label(split, i), TEMPORAL.label(split, i)) for i in range(256))
    assert set(pairs.values()) == {1}
    assert len(pairs) == 256


def test_orders_of_a_group_show_the_very_same_frames() -> None:
    """Hence the ceiling: 4 groups of 16 orders."""
    families = [
        [i for i in range(16, 32) if twins.group_of(i % 16) == group]
        for group in range(len(twins.GROUPS))
    ]
    for family in families:
        clips = [TEMPORAL.frames("test", i) for i in family]
        assert len({STATIC.label("test", i) for i in family}) == 1
        assert len({clip.tobytes() for clip in clips}) == len(clips)
        assert len({tuple(bag(clip)) for clip in clips}) == 1
    assert len(families) / 16 == twins.ORDER_FREE_CEILING


def test_every_order_shows_every_moment_once() -> None:
    for group in twins.GROUPS:
        assert len(set(group.orders.values())) == len(group.orders)
        for order in group.orders.values():
            assert sorted(order) == list(range(twins.MOMENTS))


def centre(opacity: NDArray[np.float32]) -> NDArray[np.float64]:
    """Column of the object's centre in every frame (T,)."""
    columns = np.arange(opacity.shape[2])
    return (opacity.sum(1) * columns).sum(1) / opacity.sum((1, 2))


@pytest.mark.parametrize("block", range(4))
def test_names_say_what_happens(block: int) -> None:
    """Measured on the object itself."""

    def opacity(name: str) -> NDArray[np.float32]:
        return TEMPORAL.scene("train", 16 * block + twins.ORDERS.index(name))[1]

    slack = 2 * twins.CAMERA + 1  # pixels
    right, left = centre(opacity("moving right")), centre(opacity("moving left"))
    assert right[-1] - right[0] > 24
    assert left[0] - left[-1] > 24
    back = centre(opacity("moving right and back"))
    assert back[3:5].mean() - back[[0, -1]].mean() > 18
    twice = centre(opacity("moving left twice"))
    assert twice[4] - twice[3] > 22 - slack
    assert twice[0] > twice[3] + slack

    def sizes(name: str) -> NDArray[np.float32]:
        return opacity(name).sum((1, 2))

    assert (np.diff(sizes("growing")) > 0).all()
    assert (np.diff(sizes("shrinking")) < 0).all()
    pulse = np.diff(sizes("growing and shrinking"))
    assert (pulse[:4] > 0).all()
    assert (pulse[4:] < 0).all()
    assert sizes("large before small")[:4].min() > sizes("large before small")[4:].max()
    assert sizes("small before large")[:4].max() < sizes("small before large")[4:].min()
    assert (sizes("large and small by turns")[::2] > sizes("large and small by turns")[1::2]).all()
    there = {
        name: "".join("x" if size else "." for size in sizes(name)) for name in twins.ORDERS[-4:]
    }
    assert there == {
        "going": "xxxx....",
        "coming": "....xxxx",
        "coming and going": "..xxxx..",
        "blinking": "x.x.x.x.",
    }


@pytest.mark.parametrize(("frames", "rate", "moments"), [(8, 1, range(8)), (4, 2, (0, 2, 4, 7))])
def test_clips_hold_moments_evenly(frames: int, rate: int, moments: Iterable[int]) -> None:
    for view, rng in (((0, 1), None), (None, np.random.default_rng(0))):
        sampler = RateSampler(frames, rate, 30.0, "center")
        at = sampler.place(twins.MOMENTS, float(twins.FPS), view, rng)
        assert at.start == 0
        assert list(at.offsets) == list(moments)


@pytest.mark.parametrize("kind", ["static", "temporal"])
def test_a_data_set_of_them(kind: str, tmp_path: Path) -> None:
    spec = SyntheticSpec(seed=1, train=16, val=16, test=16, kind=kind)
    write_dataset(tmp_path, spec, processes=1)
    cfg = get_cfg()
    cfg.merge_from_file(str(RECIPES / f"Study_{kind}.yaml"))
    cfg.DATA.PATH_TO_DATA_DIR = str(tmp_path)
    dataset = build_dataset("synthetic", cfg, "test")
    assert dataset.class_names == spec.class_names
    # Growing and shrinking: one bag of decoded frames, in two orders.
    growing, shrinking = dataset[9], dataset[10]
    np.testing.assert_array_equal(growing[0].numpy(), shrinking[0].flip(-3).numpy())
    assert (growing[1] == shrinking[1]) == (kind == "static")
    with av.open(str(tmp_path / spec.path("test", 9))) as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.frames) == (twins.FPS, 8)


def test_impossible_twins_name_the_option() -> None:
    for bad in ({"val": 24}, {"pairs": 4}, {"kind": "moving"}):
        with pytest.raises(UserError, match=f"--{next(iter(bad))}"):
            SyntheticSpec(**{"train": 16, "val": 16, "test": 16, "kind": "temporal"} | bad)


def test_kinds_need_folders_of_their_own(tmp_path: Path) -> None:
    sizes = {"train": 16, "val": 16, "test": 16}
    write_dataset(tmp_path, SyntheticSpec(**sizes), processes=1)
    assert "kind" not in (tmp_path / "synthetic.json").read_text()  # as in older folders
    with pytest.raises(UserError, match="kind None, not static"):
        write_dataset(tmp_path, SyntheticSpec(**sizes, kind="static"), processes=1)
