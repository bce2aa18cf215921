"""DATA.FRACTION: nested, stratified and keyed, of every data set, for training alone."""

from __future__ import annotations

import json
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from dataset_layouts import dump, ssv2_json
from torch.utils.data import Dataset

from timesformer.config.defaults import get_cfg
from timesformer.datasets import build
from timesformer.datasets.build import build_dataset, build_split
from timesformer.datasets.lists.fraction import choose, nested_order
from timesformer.datasets.lists.records import Images, Record, Records
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.utils.errors import ConfigError

FRACTIONS = (0.001, 0.1, 0.25, 0.3, 0.5, 0.75, 0.999, 1.0)


def random_list(seed: int, several: bool = False) -> list[Record]:
    """An imbalanced list in random order."""
    rng = random.Random(seed)
    records = []
    for k in range(rng.randint(1, 10)):
        for i in range(rng.choice((1, 1, 2, 5, 40, rng.randint(1, 90)))):
            label: Any = k
            if several:
                label = tuple(sorted({k, *rng.sample(range(10), rng.randint(0, 2))}))
            records.append(Record(f"/data/{k}/{i}.mp4", label))
    rng.shuffle(records)
    return records


@pytest.mark.parametrize("seed", range(25))
def test_every_beginning_of_the_order_has_each_classs_share(seed: int) -> None:
    records = random_list(seed)
    order, total = nested_order(records, "/data"), len(records)
    assert sorted(order) == list(range(total))
    whole, so_far = Counter(r.label for r in records), Counter[Any]()
    for m, i in enumerate(order, 1):
        so_far[records[i].label] += 1
        for k, n in whole.items():
            assert abs(so_far[k] - Fraction(n * m, total)) < 1


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("several", [False, True])
def test_shares_are_nested_and_keep_every_class(seed: int, several: bool) -> None:
    records = random_list(seed, several)
    rng = random.Random(seed)
    fractions = sorted([*FRACTIONS, *(rng.uniform(1e-3, 1) for _ in range(5))])
    shares = [choose(records, fraction, "/data") for fraction in fractions]
    classes = {k for r in records for k in (r.label if several else (r.label,))}  # type: ignore[union-attr]
    whole = Counter(r.label for r in records)
    for fraction, share in zip(fractions, shares, strict=True):
        assert share == sorted(set(share))
        left = [records[i].label for i in share]
        assert {k for label in left for k in (label if several else (label,))} == classes  # type: ignore[union-attr]
        wanted = max(1, int(fraction * len(records) + 0.5))
        assert wanted <= len(share) <= wanted + len(classes)
        if not several:
            for k, n in whole.items():  # rounding the total moves a share by half a video at most
                assert abs(Counter(left)[k] - n * fraction) < 1 + 0.5 * n / len(records)
    for smaller, larger in pairwise(shares):
        assert set(smaller) <= set(larger)
    assert shares[-1] == list(range(len(records)))


def test_the_total_is_exact_where_no_class_would_be_empty() -> None:
    records = [Record(f"{k}/{i}", k) for k, n in enumerate((100, 61, 40)) for i in range(n)]
    assert [len(choose(records, f)) for f in (0.25, 0.5, 0.75)] == [50, 101, 151]
    assert Counter(records[i].label for i in choose(records, 0.25)) == {0: 25, 1: 15, 2: 10}


def paths(records: Sequence[Record], fraction: float, root: str) -> set[str]:
    return {records[i].path.removeprefix(root) for i in choose(records, fraction, root)}


def test_neither_order_nor_place_nor_format_nor_segments_matter() -> None:
    records = random_list(3)
    before = paths(records, 0.3, "/data")
    shuffled = random.Random(0).sample(records, len(records))
    assert paths(shuffled, 0.3, "/data") == before
    moved = [r._replace(path=r.path.replace("/data", "/elsewhere/x")) for r in records]
    assert paths(moved, 0.3, "/elsewhere/x/") == {path.lstrip("/") for path in before}
    folders = [
        r._replace(path=r.path.removesuffix(".mp4"), images=Images(i, 9, "a_1.jpg"))
        for i, r in enumerate(records)
    ]
    assert {f"{path}.mp4" for path in paths(folders, 0.3, "/data")} == before
    trimmed = [r._replace(start=i, end=i + 5) for i, r in enumerate(records)]
    assert paths(trimmed, 0.3, "/data") == before
    other = [r._replace(path=r.path.replace(".mp4", "x.mp4")) for r in records]
    assert {p.replace("x.mp4", ".mp4") for p in paths(other, 0.3, "/data")} != before


def test_the_choice_is_the_same_for_ever() -> None:
    """A run of last year and one of today share their data."""
    records = [Record(f"/d/{k}/{i}.mp4", k) for k in range(2) for i in range(12)]
    assert choose(records, 0.25, "/d") == [3, 7, 9, 14, 18, 19]


def test_parts_of_a_video_are_chosen_one_by_one() -> None:
    records = [Record("long", 0, images=Images(i, 10)) for i in range(400)]
    halves = [sum(i < 200 for i in choose(records, f)) for f in (0.1, 0.5)]
    assert 10 < halves[0] < 30
    assert 80 < halves[1] < 120
    assert choose(records, 0.5) == sorted(
        399 - i for i in choose(records[::-1], 0.5)
    )  # by what they are


def test_classes_and_names_that_repeat_are_no_order() -> None:
    """Folders of cameras, or labels that are all different, must not be taken one after another."""
    cameras = [Record(f"/d/{i}/{cam}.mp4", 0) for i in range(200) for cam in ("left", "right")]
    lefts = sum("left" in path for path in paths(cameras, 0.5, "/d"))
    assert 70 < lefts < 130
    labels = [Record(f"/d/{i}.mp4", (0, i + 1)) for i in range(200)]
    order = nested_order(labels, "/d")
    assert 30 < sum(i < 100 for i in order[:100]) < 70


# ---------------------------------------------------------------- the data sets themselves

COUNTS = (40, 13, 6, 1)  # videos of each class


def _files(folder: Path, suffix: str = ".mp4") -> list[tuple[str, int]]:
    """Empty files, which a list may name, with their labels."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(f"{k}_{i}", k) for k, n in enumerate(COUNTS) for i in range(n)]
    for name, _ in rows:
        (folder / f"{name}{suffix}").touch()
    return [(f"{name}{suffix}", k) for name, k in rows]


def kinetics(root: Path) -> dict[str, Any]:
    for split in ("train", "val", "test"):
        rows = "".join(f"{name} {k}\n" for name, k in _files(root / "videos"))
        (root / f"{split}.csv").write_text(rows)
    return {"DATA.PATH_PREFIX": root / "videos"}


def synthetic(root: Path) -> dict[str, Any]:
    (root / "classes.txt").write_text("a\nb\nc\nd\n")
    return kinetics(root)


def several_labels(root: Path) -> dict[str, Any]:
    for split in ("train", "val", "test"):
        rows = "".join(f"{i}.mp4 {i % 3},{3 if i % 5 else i % 2}\n" for i in range(60))
        (root / f"{split}.csv").write_text(rows)
    return {"DATA.MULTI_LABEL": True, "MODEL.LOSS_FUNC": "bce"}


def ssv2(root: Path) -> dict[str, Any]:
    ids = [str(k + 174 * i) for k, n in enumerate(COUNTS) for i in range(n)]
    (root / "videos").mkdir()
    for name in ids:
        (root / "videos" / f"{name}.webm").touch()
    ssv2_json(root, "", ids, ids)
    (root / "test-answers.csv").write_text("0;Approaching something with your camera\n")
    return {"DATA.PATH_PREFIX": root / "videos", "MODEL.NUM_CLASSES": 174}


def frame_lists(root: Path) -> dict[str, Any]:
    rows = ["original_vido_id video_id frame_id path labels"]
    for number, (name, k) in enumerate(_files(root / "x", "")):
        rows += [f"{name} {number} {f} {name}/{name}_{f + 1:06d}.jpg {k}" for f in range(3)]
    for split in ("train", "val"):
        (root / f"{split}.csv").write_text("\n".join(rows) + "\n")
    return {"DATA.PATH_PREFIX": root, "MODEL.NUM_CLASSES": 174}


def diving48(root: Path) -> dict[str, Any]:
    entries = [
        {"vid_name": name, "label": k, "start_frame": 3, "end_frame": 40}
        for name, k in _files(root / "rgb", "")
    ]
    for split in ("train", "test"):
        dump(root / f"Diving48_V2_{split}.json", entries)
    return {"MODEL.NUM_CLASSES": 48}


def folders(root: Path) -> dict[str, Any]:
    for split in ("train", "val", "test"):
        for k, n in enumerate(COUNTS):
            (root / split / f"class {k}").mkdir(parents=True)
            for i in range(n):
                (root / split / f"class {k}" / f"{i}.mp4").touch()
    return {}


LAYOUTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "Kinetics": kinetics,
    "HowTo100M": kinetics,
    "Synthetic": synthetic,
    "Ssv2": ssv2,
    "Ssv2Test": ssv2,
    "Diving48": diving48,
    "VideoFolder": folders,
    "Ssv2 frame lists": frame_lists,
    "Kinetics several labels": several_labels,
}


def make_cfg(name: str, root: Path, fraction: float) -> Any:
    cfg = get_cfg()
    dataset = name.split()[0]
    options = {
        "DATA.PATH_TO_DATA_DIR": root,
        "MODEL.NUM_CLASSES": 4,
        "DATA.RANDOM_FLIP": False,
        "TEST.NUM_ENSEMBLE_VIEWS": 1,
        "TRAIN.DATASET": dataset,
        "TEST.DATASET": dataset,
        "DATA.FRACTION": fraction,
    } | json.loads((root / "options.json").read_text())
    cfg.merge_from_list([str(word) for pair in options.items() for word in pair])
    return cfg


def lay_out(name: str, root: Path) -> None:
    (root / "options.json").write_text(json.dumps(LAYOUTS[name](root), default=str))


def test_all_data_sets_are_here() -> None:
    registered = {name for name, _ in build.DATASET_REGISTRY}
    ours = {n for n, d in build.DATASET_REGISTRY if d.__module__.startswith("timesformer.")}
    assert ours <= {name.split()[0] for name in LAYOUTS} <= registered


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_data_set(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lay_out(name, tmp_path)
    chosen: dict[float, set[Record]] = {}
    for fraction in (0.25, 0.5, 0.75, 1.0):
        cfg = make_cfg(name, tmp_path, fraction)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            records = build_split(cfg, "train").records  # type: ignore[attr-defined]
        chosen[fraction] = set(records)
        assert ("DATA.FRACTION" in caplog.text) == (fraction < 1)
        for split in ("val", "test"):  # never of these
            whole = build_split(make_cfg(name, tmp_path, 1.0), split).records  # type: ignore[attr-defined]
            assert list(build_split(cfg, split).records) == list(whole)  # type: ignore[attr-defined]
    one = int("several" not in name)  # of the last class, which would be empty
    assert {f: len(found) for f, found in chosen.items()} == {
        0.25: 15 + one,
        0.5: 30 + one,
        0.75: 45 + one,
        1.0: 60,
    }
    assert chosen[0.25] < chosen[0.5] < chosen[0.75] < chosen[1.0]
    if "several" not in name:
        per_class = [n for _, n in sorted(Counter(r.label for r in chosen[0.5]).items())]
        assert sorted(per_class, reverse=True) in ([20, 7, 3, 1], [20, 6, 3, 1])


def test_records_keep_their_lines_and_the_log_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lay_out("Kinetics", tmp_path)
    with caplog.at_level(logging.INFO):
        share = build_split(make_cfg("Kinetics", tmp_path, 0.25), "train").records  # type: ignore[attr-defined]
    whole = build_split(make_cfg("Kinetics", tmp_path, 1.0), "train").records  # type: ignore[attr-defined]
    lines = {record: whole.where(i) for i, record in enumerate(whole)}
    assert [share.where(i) for i in range(len(share))] == [lines[record] for record in share]
    assert (
        "DATA.FRACTION 0.25: 16 of 60 videos for training, 1 to 10 of each class, 2.5 in the median"
        in caplog.text
    )


def test_a_data_set_of_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Numbers(Dataset):
        """Of records it knows nothing."""

    cfg = get_cfg()
    cfg.DATA.FRACTION = 0.5
    monkeypatch.setattr(build, "_registered", lambda name, split: lambda cfg, mode: Numbers())
    with pytest.raises(ConfigError, match=r"DATA\.FRACTION is for data sets of video files"):
        build_dataset("numbers", cfg, "train")
    assert isinstance(build_dataset("numbers", cfg, "val"), Numbers)


def test_nothing_is_a_share_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an empty training set means, the loader says."""
    empty = VideoDataset.__new__(VideoDataset)
    empty.records = Records()
    cfg = get_cfg()
    cfg.DATA.FRACTION = 0.5
    monkeypatch.setattr(build, "_registered", lambda name, split: lambda cfg, mode: empty)
    assert build_dataset("empty", cfg, "train") is empty


def test_a_broken_video_is_replaced_by_one_of_the_share(tmp_path: Path) -> None:
    """The files of this list are empty, so that one after the other is tried."""
    lay_out("Kinetics", tmp_path)
    dataset = build_split(make_cfg("Kinetics", tmp_path, 0.25), "train")
    assert isinstance(dataset, VideoDataset)
    tried: list[str] = []
    read = dataset._read
    dataset._read = lambda record, *rest: tried.append(record.path) or read(record, *rest)  # type: ignore[method-assign, func-returns-value]
    for index in range(len(dataset)):
        dataset.__getitems__([(index, 0)])
    assert set(tried) == {record.path for record in dataset.records}


def test_records_take_what_a_list_may_have() -> None:
    records = Records("list", multi_label=True)
    records.append("a", (1, 2), line=3)
    records.append("b", (), line=4, images=Images(5, 6, "b_000005.jpg"))
    records.append("c", (7,), line=9, start=4, end=8)
    taken = records.take([2, 1])
    assert list(taken) == [records[2], records[1]]
    assert [taken.where(i) for i in (0, 1)] == ["list, line 9", "list, line 4"]
