from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from timesformer.clips.training import TrainTransform, draw_short_side
from timesformer.clips.transform import EvalTransform, crop_corner, resize, scaled_size


def picture(height: int, width: int) -> torch.Tensor:
    """Uint8 frames (2, H, W, 3): red is the row, green the column, blue the frame."""
    frames = torch.empty(2, height, width, 3, dtype=torch.uint8)
    frames[..., 0] = torch.arange(height)[:, None]
    frames[..., 1] = torch.arange(width)
    frames[..., 2] = torch.arange(2)[:, None, None]
    return frames


def resize_by_hand(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear with pixel centres at half integers, no antialiasing, edges repeated."""

    def axis(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x = np.maximum((np.arange(new) + 0.5) * old / new - 0.5, 0)
        low = np.minimum(x.astype(int), old - 1)
        return low, np.minimum(low + 1, old - 1), x - low

    y0, y1, fy = axis(image.shape[0], height)
    x0, x1, fx = axis(image.shape[1], width)
    top = image[y0][:, x0] * (1 - fx) + image[y0][:, x1] * fx
    bottom = image[y1][:, x0] * (1 - fx) + image[y1][:, x1] * fx
    return top * (1 - fy)[:, None] + bottom * fy[:, None]


def test_threads_change_no_bit() -> None:
    """Loading in the main process gives the same clips as in workers, which have one thread."""
    image = torch.randint(256, (240, 320, 3)).byte().permute(2, 0, 1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        several = resize(image, (256, 341))
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        assert torch.equal(several, resize(image, (256, 341)))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (256, 340, 224, (224, 297)),
        (340, 256, 224, (297, 224)),
        (240, 426, 256, (256, 454)),
        (240, 240, 64, (64, 64)),
        (48, 64, 48, (48, 64)),
    ],
)
def test_resize(height: int, width: int, size: int, expected: tuple[int, int]) -> None:
    image = torch.rand(3, height, width)
    assert scaled_size(height, width, size) == expected
    resized = resize(image, expected)
    assert tuple(resized.shape) == (3, *expected)
    by_hand = resize_by_hand(image[1].double().numpy(), *expected)
    assert np.abs(resized[1].numpy() - by_hand).max() < 1e-4
    assert resize(image, expected, crop=(3, 5, 20)).equal(resized[..., 3:23, 5:25])


@pytest.mark.parametrize(
    ("height", "width", "corners"),
    [
        (224, 299, [(0, 0), (0, 38), (0, 75)]),  # ceil(75 / 2)
        (299, 224, [(0, 0), (38, 0), (75, 0)]),
        (224, 224, [(0, 0), (0, 0), (0, 0)]),
        (256, 340, [(16, 0), (16, 58), (16, 116)]),
    ],
)
def test_crop_corners(height: int, width: int, corners: list[tuple[int, int]]) -> None:
    assert [crop_corner(height, width, 224, place) for place in range(3)] == corners


def test_a_crop_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="224 pixels doesn't fit into 200x300"):
        crop_corner(200, 300, 224, 1)


def test_eval_crops() -> None:
    three = EvalTransform(short_side=40, crop_size=40, num_crops=3)(picture(40, 61))
    assert three.shape == (3, 3, 2, 40, 40)
    assert three[:, 1, 0, 0, 0].round().tolist() == [0, 11, 21]
    one = EvalTransform(short_side=40, crop_size=30, num_crops=1)(picture(40, 61))
    assert one.shape == (1, 3, 2, 30, 30)
    assert one[0, :2, 0, 0, 0].round().tolist() == [5, 16]
    assert one[0, 2, :, 0, 0].round().tolist() == [0, 1]


def test_train_crops_cover_the_picture_and_flip_half() -> None:
    transform = TrainTransform(jitter=(40, 40), crop_size=32)
    corners, flips = set(), 0
    for seed in range(300):
        clip, mirrored = transform(picture(40, 44), np.random.default_rng(seed))
        assert (clip.shape, clip.dtype) == ((3, 2, 32, 32), torch.uint8)
        row, left, right = clip[0, 0, 0, 0], clip[1, 0, 0, 0], clip[1, 0, 0, -1]
        assert mirrored == bool(left > right)
        flips += mirrored
        corners.add((round(row.item()), round(min(left, right).item())))
        assert clip[1, 0].equal(clip[1, 1])  # one crop for all frames
    assert {y for y, _ in corners} == set(range(9))
    assert {x for _, x in corners} == set(range(13))
    assert 110 < flips < 190


@pytest.mark.parametrize("size", [(48, 64), (100, 75), (31, 200)])
def test_uint8_clips_are_the_float_ones_rounded(size: tuple[int, int]) -> None:
    """The published path resizes in float; ours differs by at most one of 255 steps."""
    frames = torch.randint(256, (3, *size, 3), dtype=torch.uint8)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        clip, mirrored = TrainTransform((40, 60), 40)(frames, rng)
        rng = np.random.default_rng(seed)
        shape = scaled_size(*size, draw_short_side(rng, (40, 60), False))
        images = frames.permute(0, 3, 1, 2).float()
        exact = torch.stack([resize(image, shape) for image in images], dim=1)
        room = [side - 40 for side in exact.shape[-2:]]
        y, x = (int(rng.integers(0, r, endpoint=True)) for r in room)
        exact = exact[..., y : y + 40, x : x + 40]
        exact = exact.flip(-1) if mirrored else exact
        assert (clip.float() - exact).abs().max() <= 1


def test_resized_crops_are_alike_in_all_frames_and_leave_global_randomness_alone() -> None:
    transform = TrainTransform((40, 40), 32, resized_crop=((0.1, 0.9), (0.5, 2.0)))
    state, widths = torch.get_rng_state(), set()
    for seed in range(20):
        clip, _ = transform(picture(80, 90), np.random.default_rng(seed))
        assert clip.shape == (3, 2, 32, 32)
        assert clip[:2, 0].equal(clip[:2, 1])
        widths.add(abs(int(clip[1, 0, 0, 0]) - int(clip[1, 0, 0, -1])))
        again, _ = transform(picture(80, 90), np.random.default_rng(seed))
        assert clip.equal(again)
    assert len(widths) > 8
    assert torch.get_rng_state().equal(state)


def test_without_flip_the_crop_is_the_same() -> None:
    frames = picture(40, 44)
    for seed in range(10):
        (plain, mirrored), (flipped, _) = (
            TrainTransform((40, 40), 32, flip=flip)(frames, np.random.default_rng(seed))
            for flip in (False, True)
        )
        assert not mirrored
        assert plain[1, 0, 0, 0] < plain[1, 0, 0, -1]
        assert flipped.equal(plain) or flipped.equal(plain.flip(-1))


def test_short_sides() -> None:
    rng = np.random.default_rng(0)
    plain = [draw_short_side(rng, (256, 320), False) for _ in range(4000)]
    inverse = [draw_short_side(rng, (256, 320), True) for _ in range(4000)]
    for sides in (plain, inverse):
        assert (min(sides), max(sides)) == (256, 320)
    assert np.mean(plain) == pytest.approx(288, abs=1.5)
    # The mean of 1/u, u uniform in [1/b, 1/a], is a·b/(b − a)·ln(b/a).
    assert np.mean(inverse) == pytest.approx(256 * 320 / 64 * math.log(320 / 256), abs=1.5)
