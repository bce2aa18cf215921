"""Each data set in its real layout, with a few tiny videos: `from dataset_layouts import …`.

A `write_*` function fills a folder and returns the KEY VALUE pairs that its recipe needs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

Options = dict[str, Any]
LABELS = Path(__file__).resolve().parents[1] / "timesformer" / "datasets" / "labels"
ENCODERS = {
    ".webm": ("libvpx-vp9", {"cpu-used": "8", "deadline": "realtime"}),
    ".mp4": ("libx264", {"preset": "ultrafast"}),
    ".avi": ("mpeg4", {}),
}


def pictures(count: int, height: int = 48, width: int = 64, seed: int = 0) -> Iterable[np.ndarray]:
    """Make `count` pictures, uint8 (height, width, 3), of a bar that moves over a ground."""
    ground = np.random.default_rng(seed).integers(0, 128, (height // 8, width // 8, 3))
    ground = ground.repeat(8, 0).repeat(8, 1).astype(np.uint8)
    for i in range(count):
        picture = ground.copy()
        picture[:, i % (width - 8) : i % (width - 8) + 8] += 100
        yield picture


def write_tiny(path: Path, count: int = 30, fps: int = 30, side: int = 48, seed: int = 0) -> Path:
    """Write a video of side × 4/3 side pixels in the codec that is usual for its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec, options = ENCODERS[path.suffix.lower()]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width, stream.pix_fmt = side, side * 4 // 3, "yuv420p"
        for picture in pictures(count, side, side * 4 // 3, seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_pictures(folder: Path, count: int = 12, seed: int = 0) -> Path:
    """Write a video as extracted frames, FOLDER/FOLDER_000001.jpg and so on."""
    folder.mkdir(parents=True)
    for i, picture in enumerate(pictures(count, seed=seed), 1):
        Image.fromarray(picture).save(folder / f"{folder.name}_{i:06d}.jpg")
    return folder


def shipped_names(name: str) -> list[str]:
    return (LABELS / f"{name}.txt").read_text(encoding="utf-8").split("\n")[:-1]


def dump(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def ssv2_json(folder: Path, prefix: str, train: list[str], val: list[str]) -> None:
    """Write labels and splits as their provider does; classes 0, 7, 14, … of 174 are used."""
    names = shipped_names("ssv2")
    dump(folder / f"{prefix}labels.json", {name: str(i) for i, name in enumerate(names)})
    for split, videos in {"train": train, "validation": val}.items():
        entries = []
        for video in videos:
            name = names[int(video) * 7 % len(names)]
            template = name.replace("something", "[something]")
            label = name.replace("something", "a cup")
            entries.append(
                {"id": video, "label": label, "template": template, "placeholders": ["a cup"]}
            )
        dump(folder / f"{prefix}{split}.json", entries)
    dump(folder / f"{prefix}test.json", [{"id": "99"}])


def write_ssv2_webm(root: Path) -> Options:
    """Something-Something V2 as downloaded: VP9 in webm, without a number of frames in the file."""
    train, val = [str(i) for i in range(8)], ["8", "9", "10"]
    for i, video in enumerate([*train, *val]):
        write_tiny(root / "videos" / f"{video}.webm", 14 + i, 12, seed=i)
    ssv2_json(root / "lists", "something-something-v2-", train, val)
    return {"DATA.PATH_TO_DATA_DIR": root / "lists", "DATA.PATH_PREFIX": root / "videos"}


def write_ssv2_frames(root: Path, lists: bool = False) -> Options:
    """Something-Something V2 as frames, with labels/*.json or else with frame lists."""
    train, val = [str(i) for i in range(8)], ["8", "9", "10"]
    for i, video in enumerate([*train, *val]):
        write_pictures(root / "frames" / video, 10 + i, seed=i)
    if not lists:
        ssv2_json(root / "labels", "", train, val)
    else:
        for split, videos in {"train": train, "val": val}.items():
            rows = ["original_vido_id video_id frame_id path labels"]
            for number, video in enumerate(videos):
                for i, frame in enumerate(sorted((root / "frames" / video).iterdir())):
                    rows.append(f'{video} {number} {i} {video}/{frame.name} "{int(video) * 7}"')
            (root / f"{split}.csv").write_text("\n".join(rows) + "\n")
    return {"DATA.PATH_TO_DATA_DIR": root, "DATA.PATH_PREFIX": root / "frames"}


def write_diving48(root: Path) -> Options:
    """Diving-48 V2 with its vocabulary."""
    vocabulary = [name.split("+") for name in shipped_names("diving48")]
    dump(root / "Diving48_vocab.json", vocabulary)
    for split, count in {"train": 8, "test": 4}.items():
        entries = []
        for i in range(count):
            name, frames = f"-{split}_{i:05d}", 40 + 5 * i
            write_tiny(root / "rgb" / f"{name}.mp4", frames, 25, seed=i)
            entries.append(
                {"vid_name": name, "label": i * 6 % 48, "start_frame": 3, "end_frame": frames - 2}
            )
        dump(root / f"Diving48_V2_{split}.json", entries)
    return {"DATA.PATH_TO_DATA_DIR": root}


def write_howto100m(root: Path) -> Options:
    """Long videos, 40 s at 6 frames/s, and lists as of Kinetics."""
    for split, count in {"train": 8, "val": 1, "test": 2}.items():
        rows = []
        for i in range(count):
            write_tiny(root / "videos" / f"{split}_{i}.mp4", 240, 6, seed=i)
            rows.append(f"{split}_{i}.mp4 {i * 131}\n")
        (root / f"{split}.csv").write_text("".join(rows))
    return {"DATA.PATH_TO_DATA_DIR": root, "DATA.PATH_PREFIX": root / "videos"}


def write_folder(root: Path) -> Options:
    """A folder for each class: three containers, a nested folder, frames, and things to ignore."""
    for name in ("jump", "run"):
        for i, suffix in enumerate((".mp4", ".avi", ".webm", ".mp4")):
            write_tiny(root / name / f"clip {i}{suffix}", 30 + i, seed=i)
        write_tiny(root / name / "more" / "deep.MP4", 30)
        write_pictures(root / name / "frames", 10)
        (root / name / "notes.txt").write_text("not a video")
        (root / name / ".hidden.mp4").write_text("not a video")
    return {"DATA.PATH_TO_DATA_DIR": root, "MODEL.NUM_CLASSES": 2}


def write_kinetics_strings(root: Path) -> Options:
    """Lists with class names for labels, and spaces in names of files."""
    root.mkdir(parents=True, exist_ok=True)
    names = ["air drumming", "jump rope", "zumba"]
    (root / "classes.txt").write_text("\n".join(names) + "\n")
    for split, count in {"train": 8, "val": 2, "test": 3}.items():
        rows = []
        for i in range(count):
            write_tiny(root / "my videos" / f"{split} clip {i}.mp4", 40, seed=i)
            rows.append(f"my videos/{split} clip {i}.mp4 {names[i % 3]}\n")
        (root / f"{split}.csv").write_text("".join(rows))
    return {
        "DATA.PATH_TO_DATA_DIR": root,
        "DATA.PATH_PREFIX": root,
        "DATA.CLASS_NAMES": root / "classes.txt",
        "MODEL.NUM_CLASSES": 3,
    }


def write_multi_label(root: Path) -> Options:
    """Lists with several labels a video."""
    for split, count in {"train": 8, "val": 2, "test": 3}.items():
        rows = []
        for i in range(count):
            write_tiny(root / f"{split}_{i}.mp4", 40, seed=i)
            labels = f"{i % 5},{(i + 2) % 5}" if i % 2 else i % 5
            rows.append(f"{split}_{i}.mp4 {labels}\n")
        (root / f"{split}.csv").write_text("".join(rows))
    return {
        "DATA.PATH_TO_DATA_DIR": root,
        "DATA.PATH_PREFIX": root,
        "DATA.CLASS_NAMES": "''",
        "DATA.MULTI_LABEL": True,
        "MODEL.LOSS_FUNC": "bce",
        "MODEL.NUM_CLASSES": 5,
    }
