"""Balanced epochs: exact numbers of draws, of every class and, over time, of every video."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from small_run import small_cfg

from timesformer.datasets.balance import BalancedEpochs, earlier, quotas
from timesformer.datasets.loader import TrainBatches, construct_loader
from timesformer.utils.rng import keyed_rng

COUNTS = (30, 9, 0, 5, 1)
LABELS = np.random.default_rng(0).permutation(np.repeat(range(5), COUNTS))
N = len(LABELS)


@pytest.mark.parametrize("balance", [0.0, 0.25, 0.5, 1.0])
def test_draws_of_a_class_are_its_share(balance: float) -> None:
    epochs = BalancedEpochs(LABELS, balance, seed=3)
    weights = [n ** (1 - balance) if n else 0.0 for n in COUNTS]
    drawn = Counter(LABELS[epochs.draw(7)[0]].tolist())
    assert sum(drawn.values()) == N
    for k, (n, weight) in enumerate(zip(COUNTS, weights, strict=True)):
        assert abs(drawn[k] - N * weight / sum(weights)) < 1
        assert (drawn[k] > 0) == (n > 0)
    assert [drawn[k] for k in range(5)] == epochs.quotas.tolist()


def test_quotas_by_hand() -> None:
    assert quotas(COUNTS, 0).tolist() == list(COUNTS)
    assert quotas(COUNTS, 1).tolist() == [12, 11, 0, 11, 11]
    assert quotas((64, 4, 0, 16), 0.5).tolist() == [48, 12, 0, 24]


@pytest.mark.parametrize("seed", range(20))
def test_quotas_of_any_list(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, rng.choice([3, 50, 2000]), rng.integers(2, 400))
    counts[0] = 1
    for balance in (1e-9, rng.random(), 0.5, 1.0):
        found = quotas(counts, balance)
        assert found.sum() == counts.sum()
        assert ((found > 0) == (counts > 0)).all()
    assert (quotas(counts, 0) == counts).all()


def test_over_the_epochs_videos_of_a_class_come_equally_often() -> None:
    epochs = BalancedEpochs(LABELS, 1.0, seed=3)
    so_far = Counter[int]()
    for epoch in range(13):
        so_far.update(epochs.draw(epoch)[0].tolist())
        for k, quota in enumerate(epochs.quotas.tolist()):
            times = [so_far[i] for i in np.flatnonzero(k == LABELS)]
            fair = [Fraction((epoch + 1) * quota, COUNTS[k])] if times else []
            assert all(abs(n - x) < 1 for n in times for x in fair)


def test_each_round_has_an_order_of_its_own() -> None:
    """Of class 0, 12 of 30 videos an epoch: epochs 0 and 5 start a round."""
    epochs = BalancedEpochs(LABELS, 1.0, seed=3)
    assert epochs.quotas[0] == 12
    first, second = ({i for i in epochs.draw(e)[0].tolist() if LABELS[i] == 0} for e in (0, 5))
    assert len(first) == len(second) == 12
    assert first != second


def test_without_it_epochs_and_clips_are_those_of_before(synthetic_dir: Path) -> None:
    loader = construct_loader(small_cfg(synthetic_dir, Path("x"), RNG_SEED=5), "train")
    loader.set_epoch(3)
    order = keyed_rng("order", 5, 3).permutation(24).tolist()
    assert list(chain(*loader.batch_sampler)) == [(i, 3) for i in order]  # type: ignore[arg-type]
    (clip,) = loader.dataset._generators(7, 3)
    assert clip.random() == keyed_rng("clip", 5, 3, 7).random()


def test_a_video_that_comes_again_goes_on_with_its_clips(synthetic_dir: Path) -> None:
    """Of two a time these are its clips 0 and 1, then 2 and 3."""
    cfg = small_cfg(synthetic_dir, Path("x"), DATA__NUM_SAMPLES=2)
    dataset = construct_loader(cfg, "train").dataset
    assert [r.random() for r in dataset._generators(7, 3, 1)] == [
        keyed_rng("clip", 0, 3, 7, clip).random() for clip in (2, 3)
    ]
    items = dataset.__getitems__([(7, 3), (7, 3, 1)])
    assert [int(item[3]["view"]) for item in items] == [0, 1, 2, 3]  # type: ignore[index, call-overload]
    assert dataset[(7, 3, 1)][0].equal(items[2][0])  # type: ignore[index]


def test_an_epoch_is_a_function_of_seed_and_epoch_and_shuffled() -> None:
    draws = [BalancedEpochs(LABELS, 1.0, s).draw(e)[0].tolist() for s, e in ((1, 2),) * 2]
    assert draws[0] == draws[1]
    others = [BalancedEpochs(LABELS, 1.0, s).draw(e)[0].tolist() for s, e in ((2, 2), (1, 3))]
    assert draws[0] not in others
    runs = 1 + np.count_nonzero(np.diff(LABELS[draws[0]]))
    assert runs > N / 2  # not class by class


def test_how_often_a_video_came_before() -> None:
    assert earlier(np.array([5, 0, 5, 5, 2, 0])).tolist() == [0, 0, 1, 2, 0, 1]
    videos, before = BalancedEpochs(LABELS, 1.0, seed=0).draw(0)
    pairs = list(zip(videos.tolist(), before.tolist(), strict=True))
    assert len(set(pairs)) == N  # no clip twice
    for video, times in Counter(videos.tolist()).items():
        assert sorted(n for i, n in pairs if i == video) == list(range(times))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_ranks_share_an_epoch(size: int) -> None:
    def epoch(size: int) -> list[list[tuple[int, ...]]]:
        ranks = []
        for rank in range(size):
            sampler = TrainBatches(N, 6 // size, rank, size, 4, BalancedEpochs(LABELS, 1.0, seed=4))
            sampler.epoch = 2
            ranks.append(list(sampler))
        return [list(chain(*batches)) for batches in zip(*ranks, strict=True)]

    assert epoch(size) == epoch(1)
    assert len(epoch(1)) == N // 6


def test_a_video_that_comes_again_is_cut_anew(tmp_path: Path, synthetic_dir: Path) -> None:
    """Else oversampling would show the same pixels again; workers make no difference."""
    rows = (synthetic_dir / "train.csv").read_text().splitlines()
    kept = [row for row in rows if not row.endswith(" 0")][:15]
    kept.append(next(row for row in rows if row.endswith(" 0")))
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}.csv").write_text("\n".join(kept) + "\n")
    (tmp_path / "classes.txt").write_text((synthetic_dir / "classes.txt").read_text())
    for name in ("videos", "train"):
        if (synthetic_dir / name).is_dir():
            (tmp_path / name).symlink_to(synthetic_dir / name)
    clips = []
    for workers in (0, 2):
        cfg = small_cfg(
            tmp_path, tmp_path / "x", TRAIN__CLASS_BALANCE=1.0, DATA_LOADER__NUM_WORKERS=workers
        )
        loader = construct_loader(cfg, "train")
        batches = list(loader)
        lonely = [
            (x, int(view))
            for inputs, labels, _, meta in batches
            for x, label, view in zip(inputs, labels.tolist(), meta["view"], strict=True)
            if label == 0
        ]
        assert len(lonely) > 1
        assert len({view for _, view in lonely}) == len(lonely)
        assert not any(a.equal(b) for i, (a, _) in enumerate(lonely) for b, _ in lonely[:i])
        clips.append(batches)
    for a, b in zip(*clips, strict=True):
        assert all(x.equal(y) for x, y in zip(a[1:3], b[1:3], strict=True))
        # a resize in several threads, which workers don't have, may round otherwise
        assert (a[0].int() - b[0].int()).abs().max() <= 1
