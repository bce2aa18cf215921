"""Writes the Synthetic dataset: videos, Kinetics-style lists and class names.

    DIR/synthetic.json               what the folder is made of; written first
    DIR/train/moving_left/00000.mp4  …
    DIR/{train,val,test}.csv         `path label`, paths relative to DIR; written last
    DIR/classes.txt                  one name a line, in label order

Every video depends on (seed, split, index) alone, so any number of processes writes the same
bytes, and whatever an interrupted run left is completed rather than made again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timesformer.prepare import synthetic_twins as twins
from timesformer.prepare import synthetic_video as motion
from timesformer.prepare.claim import claim
from timesformer.utils.errors import UserError
from timesformer.utils.files import write_text
from timesformer.utils.processes import cores, in_processes

SPLITS = ("train", "val", "test")
MANIFEST = "synthetic.json"
# Goes up when the same parameters draw other videos, so that old folders aren't taken for new.
FORMAT = 2
VIDEOS_PER_TASK = 16


# Videos of train, val and test of each kind.
SIZES = {"motion": (3000, 300, 600), "static": (4096, 256, 768), "temporal": (4096, 256, 768)}
KINDS = tuple(SIZES)


@dataclass(frozen=True)
class SyntheticSpec:
    """What to make. Equal specs give equal files.

    Attributes:
        seed: >= 0.
        train, val, test: number of videos. Those of val and test are whole families of videos with
            the very same frames, so a model that ignores the order of frames gets one of each
            family right at most: pairs of a video and its exact reverse, so both numbers are even;
            of the twins 16 videos of 4 families.
        pairs: of motions: 3, or 4 to include the harder pair of turning clockwise and
            counter-clockwise.
        kind: motion, or one of the twins: static, temporal.

    Raises:
        UserError: for a value that can't be, with the option to change.
    """

    seed: int = 0
    train: int = SIZES["motion"][0]
    val: int = SIZES["motion"][1]
    test: int = SIZES["motion"][2]
    pairs: int = 3
    kind: str = "motion"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"--kind {self.kind}: choose {', '.join(KINDS)}")
        if self.seed < 0:
            raise UserError(f"--seed {self.seed}: must be 0 or more")
        if self.pairs not in (3, 4) or (self.pairs != 3 and self._is_twin):
            raise UserError(f"--pairs {self.pairs}: must be 3 or, with --kind motion, 4")
        family, name = (
            (twins.CLASSES, f"a multiple of {twins.CLASSES}") if self._is_twin else (2, "even")
        )
        for split in SPLITS:
            videos = getattr(self, split)
            if videos < 1:
                raise UserError(f"--{split} {videos}: must be 1 or more")
            if split != "train" and videos % family:
                raise UserError(
                    f"--{split} {videos}: must be {name}, as its videos come in families of the "
                    "same frames"
                )

    @classmethod
    def of_kind(cls, kind: str, seed: int = 0, pairs: int = 3, **videos: int) -> SyntheticSpec:
        """Return what is made of a kind: of splits that `videos` doesn't name its own numbers."""
        sizes = dict(zip(SPLITS, SIZES[kind], strict=True))
        return cls(seed, **(sizes | videos), pairs=pairs, kind=kind)

    @property
    def _is_twin(self) -> bool:
        return self.kind != "motion"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in label order."""
        if self.kind == "static":
            return twins.LOOKS
        if self.kind == "temporal":
            return twins.ORDERS
        return tuple(name for pair in motion.MOTIONS[: self.pairs] for name in pair)

    @property
    def fps(self) -> Fraction:
        """Frames a second."""
        return twins.FPS if self._is_twin else motion.FPS

    def label(self, split: str, index: int) -> int:
        """Label of video `index` of a split; orders come one after the other."""
        if not self._is_twin:
            return index % (2 * self.pairs)
        return twins.classes_of(index, split != "train")[self.kind == "temporal"]

    def path(self, split: str, index: int) -> Path:
        """Where that video is, relative to the dataset's folder."""
        folder = self.class_names[self.label(split, index)].replace(" ", "_")
        return Path(split, folder, f"{index:05d}.mp4")

    def frames(self, split: str, index: int) -> NDArray[np.uint8]:
        """Draw that video: RGB (T, H, W, 3)."""
        return self.scene(split, index)[0]

    def scene(self, split: str, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Draw that video, and say where its object is.

        Returns:
            RGB (T, H, W, 3), and how much of the object each pixel shows, in [0, 1] (T, H, W).
        """
        if self._is_twin:
            look, order = twins.classes_of(index, split != "train")
            family = index // twins.CLASSES * len(twins.GROUPS) + twins.group_of(order)
            rng = self._generator(split, index if split == "train" else family)
            return twins.draw_scene(rng, look, order)
        rng = self._generator(split, index if split == "train" else index // 2)
        which, backwards = divmod(self.label(split, index), 2)
        drawn = motion.render(rng, motion.draw_trajectory(rng, which))
        forward = slice(None, None, -1 if backwards else 1)
        return drawn.frames[forward], drawn.opacity[forward]

    def manifest(self) -> dict[str, Any]:
        """Return what a folder says of how its videos are made.

        Folders of motions from before there were other kinds don't name theirs.
        """
        made = {"format": FORMAT, **asdict(self)}
        return made if self._is_twin else {k: v for k, v in made.items() if k != "kind"}

    def _generator(self, split: str, scene: int) -> np.random.Generator:
        # Keys are all of this length; a data set, once published, keeps its generator. The twins
        # have the same one: they are the same videos.
        return np.random.default_rng([self.seed, SPLITS.index(split), scene])


def write_dataset(
    output: Path,
    spec: SyntheticSpec,
    processes: int | None = None,
    progress: Callable[[int], object] = lambda videos: None,
) -> int:
    """Make `output` a complete dataset of `spec`.

    Args:
        output: folder, made when missing.
        spec: what to make.
        processes: how many write at a time; one for each usable core when None.
        progress: called with the number of videos just finished or found.

    Returns:
        How many videos had to be written; 0 when all were there.

    Raises:
        UserError: if the folder holds something else; nothing is changed then.
    """
    claim(output / MANIFEST, spec.manifest())
    videos = [(split, i) for split in SPLITS for i in range(getattr(spec, split))]
    missing = [video for video in videos if not (output / spec.path(*video)).is_file()]
    progress(len(videos) - len(missing))
    for folder in {(output / spec.path(*video)).parent for video in missing}:
        folder.mkdir(parents=True, exist_ok=True)

    tasks = [missing[i : i + VIDEOS_PER_TASK] for i in range(0, len(missing), VIDEOS_PER_TASK)]
    processes = min(processes or cores(), len(tasks))
    write = partial(_write_videos, output, spec)
    with closing(in_processes(write, tasks, processes if processes > 1 else 0, _crashed)) as done:
        for _, count in done:
            progress(count)

    for split in SPLITS:
        rows = [
            f"{spec.path(split, i).as_posix()} {spec.label(split, i)}\n"
            for i in range(getattr(spec, split))
        ]
        write_text(output / f"{split}.csv", "".join(rows))
    write_text(output / "classes.txt", "".join(f"{name}\n" for name in spec.class_names))
    return len(missing)


def _write_videos(output: Path, spec: SyntheticSpec, videos: Sequence[tuple[str, int]]) -> int:
    for split, index in videos:
        motion.write_video(output / spec.path(split, index), spec.frames(split, index), spec.fps)
    return len(videos)


def _crashed(videos: Sequence[tuple[str, int]]) -> int:
    split, index = videos[0]
    raise UserError(
        f"the process that writes {split} video {index} and those after it dies: is there memory "
        "enough? --processes 1 takes the least"
    )
