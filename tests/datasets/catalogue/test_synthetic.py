"""The generated videos: nothing but the order of frames tells the classes of a pair apart."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from timesformer.clips.sampling import RateSampler
from timesformer.config.defaults import get_cfg
from timesformer.datasets.build import build_dataset
from timesformer.datasets.catalogue.synthetic import Synthetic
from timesformer.prepare.synthetic_video import FPS, LENGTHS, MOTIONS, draw_trajectory, write_video
from timesformer.prepare.synthetic_writer import KINDS, SyntheticSpec, write_dataset
from timesformer.utils.errors import AnnotationError

RECIPE = Path(__file__).parents[3] / "configs/Synthetic/TimeSformer_divST_8_64.yaml"
SPEC = SyntheticSpec(seed=3, train=12, val=6, test=12)


def decode(path: Path) -> tuple[NDArray[np.uint8], list[bool], list[int]]:
    """Frames as gray values, whether each is a keyframe, and the bytes of each packet."""
    with av.open(str(path)) as container:
        sizes = [packet.size for packet in container.demux(video=0) if packet.size]
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        keys = [frame.key_frame for frame in frames]
        return np.stack([frame.to_ndarray(format="gray") for frame in frames]), keys, sizes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synthetic")
    write_dataset(path, SPEC, processes=1)
    return path


def config(folder: Path):
    cfg = get_cfg()
    cfg.merge_from_file(str(RECIPE))
    cfg.DATA.PATH_TO_DATA_DIR = str(folder)
    return cfg


def test_videos_may_lie_elsewhere_than_their_lists(folder: Path, tmp_path: Path) -> None:
    cfg = config(folder)
    cfg.DATA.PATH_PREFIX = str(tmp_path)
    paths = [record.path for record in build_dataset("synthetic", cfg, "val").records]
    assert paths
    assert all(Path(path).is_relative_to(tmp_path) for path in paths)


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_videos_come_with_their_exact_reverse(split: str) -> None:
    for i in range(0, getattr(SPEC, split), 2):
        first, second = SPEC.frames(split, i), SPEC.frames(split, i + 1)
        np.testing.assert_array_equal(first, second[::-1])
        assert not np.array_equal(first, second)
        assert SPEC.label(split, i + 1) == SPEC.label(split, i) + 1


def test_train_videos_are_different_scenes() -> None:
    first, second = SPEC.frames("train", 0), SPEC.frames("train", 1)
    assert first.shape != second.shape or not np.array_equal(first, second[::-1])


@pytest.mark.parametrize("motion", range(len(MOTIONS)))
def test_trajectories_are_symmetric_about_the_middle(motion: int) -> None:
    for seed in range(20):
        path = draw_trajectory(np.random.default_rng(seed), motion)
        middle = len(path.x) // 2
        assert len(path.x) % 2 == 1
        if motion < 2:
            moving = (path.x, path.y)[motion]
            np.testing.assert_allclose(moving + moving[::-1], 2 * moving[middle], atol=1e-3)
            assert (np.diff(moving) < 0).all()
        elif motion == 2:
            np.testing.assert_allclose(
                path.radius * path.radius[::-1], path.radius[middle] ** 2, rtol=1e-4
            )
            assert (np.diff(path.radius) > 0).all()


def test_clockwise_is_clockwise_on_the_screen() -> None:
    path = draw_trajectory(np.random.default_rng(0), 3)
    ahead = np.stack([np.diff(path.x), np.diff(path.y)])
    # With rows running down, turning right on the screen is a positive cross product.
    assert (ahead[0, :-1] * ahead[1, 1:] - ahead[1, :-1] * ahead[0, 1:] > 0).all()


def test_a_frame_decodes_the_same_wherever_it_stands(tmp_path: Path) -> None:
    frames = SPEC.frames("train", 4)
    write_video(tmp_path / "forward.mp4", frames)
    write_video(tmp_path / "backward.mp4", frames[::-1])
    forward, keys, _ = decode(tmp_path / "forward.mp4")
    backward, _, _ = decode(tmp_path / "backward.mp4")
    assert all(keys)
    np.testing.assert_array_equal(forward, backward[::-1])


def test_no_frame_is_coded_better_than_another(tmp_path: Path) -> None:
    """Equal frames in, equal quality and nearly equal bytes out."""
    still = np.repeat(SPEC.frames("train", 0)[:1], 17, axis=0)
    write_video(tmp_path / "still.mp4", still)
    decoded, _, sizes = decode(tmp_path / "still.mp4")
    assert (decoded == decoded[0]).all()
    # The first packet also carries the encoder's own note (SEI).
    assert max(sizes[1:]) - min(sizes[1:]) <= 4


@pytest.mark.parametrize("length", LENGTHS)
def test_selection_is_even_and_favours_no_end(length: int) -> None:
    cfg = config(Path())
    sampler = RateSampler(
        cfg.DATA.NUM_FRAMES, cfg.DATA.SAMPLING_RATE, cfg.DATA.TARGET_FPS, "center"
    )
    position = sampler.place(length, float(FPS), (0, 1))
    assert position.offsets == tuple(range(0, 16, 2))
    first = int(np.ceil(position.start))
    assert first + 14 == length - 1 - first

    starts = Counter(
        int(np.ceil(sampler.place(length, float(FPS), None, np.random.default_rng(i)).start))
        for i in range(600)
    )
    mirrored = {length - 1 - 14 - start for start in starts}
    # The one start at the very end has a probability of 1.6 %.
    assert set(range(1, length - 15)) <= set(starts) | mirrored
    mean = sum(start * count for start, count in starts.items()) / 600
    assert abs(mean + 7 - (length - 1) / 2) < 0.2


def test_lists_are_balanced_and_name_existing_files(folder: Path) -> None:
    for split in ("train", "val", "test"):
        rows = (folder / f"{split}.csv").read_text().splitlines()
        paths, labels = zip(*(row.split(" ") for row in rows), strict=True)
        assert all((folder / path).is_file() for path in paths)
        assert set(Counter(labels).values()) == {getattr(SPEC, split) // 6}
    assert (folder / "classes.txt").read_text().splitlines() == list(SPEC.class_names)


def test_dataset_reads_clips_and_names(folder: Path) -> None:
    dataset = build_dataset("synthetic", config(folder), "test")
    assert isinstance(dataset, Synthetic)
    assert dataset.class_names == SPEC.class_names
    inputs, label, index, _ = dataset[5]
    assert (tuple(inputs.shape), label, index) == ((3, 3, 8, 64, 64), 5, 5)


def test_a_model_that_ignores_order_sees_the_same_in_both_clips(folder: Path) -> None:
    for split in ("val", "test"):
        dataset = build_dataset("synthetic", config(folder), split)
        first, second = dataset[2][0], dataset[3][0]
        np.testing.assert_array_equal(first.numpy(), second.flip(-3).numpy())


def test_missing_videos_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"timesformer make-synthetic --output"):
        build_dataset("synthetic", config(tmp_path / "nothing"), "train")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pairs", [3, 4])
def test_advice_is_to_make_what_the_recipe_wants(kind: str, pairs: int, tmp_path: Path) -> None:
    if kind != "motion" and pairs == 4:
        return
    cfg = config(tmp_path)
    cfg.MODEL.NUM_CLASSES = len(SyntheticSpec.of_kind(kind, pairs=pairs).class_names)
    with pytest.raises(AnnotationError, match=r"or set DATA\.PATH_TO_DATA_DIR") as caught:
        Synthetic(cfg, "train")
    said = str(caught.value)
    assert (kind in said.partition("--kind ")[2].partition(" ")[0]) == (kind != "motion")
    assert ("--pairs 4" in said) == (pairs == 4)
