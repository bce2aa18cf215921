"""The device's half of preprocessing: normalisation and augmentation of batches."""

from __future__ import annotations

import pytest
import torch

from timesformer.clips.augment import ClipAugment
from timesformer.clips.transform import Normalize

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.25, 0.2)


def test_normalize() -> None:
    pixels = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1, 1)
    clips = pixels.expand(2, 3, 4, 2, 2)
    expected = [(v / 255 - m) / s for v, m, s in zip((0, 128, 255), MEAN, STD, strict=True)]
    for kind in (clips, clips.float(), clips[0]):
        out = Normalize(MEAN, STD)(kind)
        assert (out.shape, out.dtype) == (kind.shape, torch.float32)
        assert out[..., 0, 0, 0].reshape(-1, 3)[0].tolist() == pytest.approx(expected, abs=1e-6)
    # BGR: the model sees blue first, and mean and std are in its order.
    expected = [(v / 255 - m) / s for v, m, s in zip((255, 128, 0), MEAN, STD, strict=True)]
    bgr = Normalize(MEAN, STD, bgr=True)(clips)
    assert bgr[1, :, 0, 0, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_normalize_keeps_its_input() -> None:
    clips = torch.rand(1, 3, 2, 4, 4)
    before = clips.clone()
    Normalize(MEAN, STD)(clips)
    assert clips.equal(before)


def batch(count: int = 4) -> torch.Tensor:
    """Different clips whose frames are all alike."""
    return torch.randint(256, (count, 3, 1, 24, 24), dtype=torch.uint8).expand(-1, -1, 3, -1, -1)


OPTIONS = {
    "rand_augment": {"rand_augment": (2, 15)},
    "color_jitter": {"color_jitter": 0.4},
    "erasing": {"erasing": 1.0},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_each_clip_by_its_own_key_and_all_frames_alike(name: str) -> None:
    augment = ClipAugment(Normalize(MEAN, STD), **OPTIONS[name], seed=3)
    clips, index, view = batch(), torch.tensor([5, 9, 2, 9]), torch.tensor([0, 0, 0, 1])
    plain, state = Normalize(MEAN, STD)(clips), torch.get_rng_state()
    out = augment(clips, index, view, epoch=1)
    assert torch.get_rng_state().equal(state)
    assert (out.shape, out.dtype) == (clips.shape, torch.float32)
    assert all(out[:, :, 0].equal(out[:, :, t]) for t in range(3))
    assert not out.equal(plain)
    # A clip's augmentation doesn't depend on the batch that it is in.
    order = torch.tensor([3, 0, 2])
    assert augment(clips[order], index[order], view[order], epoch=1).equal(out[order])
    assert not augment(clips, index, view, epoch=2).equal(out)
    same, index = clips[:1].expand(2, -1, -1, -1, -1), torch.tensor([9, 9])
    first, second = augment(same, index, torch.tensor([0, 1]), epoch=1)
    assert not first.equal(second)


def test_erasing_sets_a_box_to_the_mean() -> None:
    augment = ClipAugment(Normalize(MEAN, STD), erasing=1.0)
    clips, zeros = batch(), torch.zeros(4, dtype=torch.long)
    out = augment(clips, torch.arange(4), zeros, 0)
    changed = out != Normalize(MEAN, STD)(clips)
    assert changed.any()
    assert (out[changed] == 0).all()


def test_without_augmentation_it_only_normalises() -> None:
    clips, zeros = batch(), torch.zeros(4, dtype=torch.long)
    out = ClipAugment(Normalize(MEAN, STD))(clips, zeros, zeros, 0)
    assert out.equal(Normalize(MEAN, STD)(clips))
