"""The options that commands share which ask a trained model about videos, and what they mean."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch

from timesformer.inference.backends import BACKENDS, OF_TORCH, TORCH
from timesformer.inference.load import DEVICE, load
from timesformer.inference.prediction import TOPK
from timesformer.inference.predictor import BATCH, Predictor, views_of
from timesformer.utils.errors import in_one_line
from timesformer.utils.parser import CommandParser, duration
from timesformer.utils.precision import AMP_TYPES

FRAMES_FPS = 30.0  # as DATA.FRAMES_FPS


def load_asked(args: argparse.Namespace) -> Predictor:
    """Load the model that the options of `add_checkpoint` and `add_computing` ask for.

    Raises:
        UserError, WeightsError, ConfigError, ModuleNotFoundError: as `load`.
    """
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    return load(
        args.checkpoint,
        device=args.device,
        amp=args.amp,
        sampling_rate=args.sampling_rate,
        backend=args.backend,
        tell=_tell,
    )


def _tell(line: str) -> None:
    print(in_one_line(line), file=sys.stderr)


class ModelParser(CommandParser):
    """The parser of a command that asks a trained model about videos.

    Each option is written down here once; a command takes those that mean something to it, and its
    own beside them.
    """

    def __init__(self, name: str | None, about: str | None, usage: str | None = None) -> None:
        super().__init__(name, about, usage)
        self._counts: list[str] = []
        self._rates: list[str] = []

    def add_checkpoint(self, exported: bool = True) -> None:
        """Add `--checkpoint`; `exported` says whether a file of `timesformer export` will do."""
        files = "a file, exported or not" if exported else "a file"
        self.add_argument("--checkpoint", required=True, metavar="WEIGHTS",
                          help=f"{files}, a run's folder, hf/ORG/NAME, …")  # fmt: skip

    def add_computing(self, scores: bool = True) -> None:
        """Add `--device`, `--amp`, `--threads`, `--sampling-rate` and `--backend`.

        Args:
            scores: scores are all that the command needs of a model, as backends give them.
        """
        self.add_argument("--device", default=DEVICE,
                          help="cpu, cuda, cuda:1, … (the GPU if any)")  # fmt: skip
        self.add_argument("--amp", nargs="?", const="bf16", default="none",
                          choices=["none", *AMP_TYPES],
                          help="compute in bf16 (or in fp16)")  # fmt: skip
        able = BACKENDS if scores else OF_TORCH
        others = "; others for CPUs, made of the weights once and kept; auto: the fastest of these"
        self.add_argument("--backend", choices=able, default=TORCH,
                          help="torch, or its code made for the blocks (blocks), in a minute or so"
                          + others * scores)  # fmt: skip
        self.add_argument("--threads", type=int, metavar="N",
                          help="that a CPU computes with (as OMP_NUM_THREADS says, or one a "
                          "core)")  # fmt: skip
        self.add_sampling_rate()
        self._counts += ["--threads", "--sampling-rate"]

    def add_batch_size(self) -> None:
        """Add `--batch-size`."""
        self.add_argument("--batch-size", type=int, default=BATCH, metavar="N",
                          help=f"clips that the model gets at once ({BATCH})")  # fmt: skip
        self._counts.append("--batch-size")

    def add_topk(self) -> None:
        """Add `--topk`."""
        self.add_argument("--topk", type=int, default=TOPK, metavar="K",
                          help=f"classes to name ({TOPK})")  # fmt: skip
        self._counts.append("--topk")

    def add_views(self, meaning: str = "of a video (the test's, or 1x3)") -> None:
        """Add `--views`, for `Predictor.with_views`; what can't be views is told while parsing."""
        self.add_argument("--views", type=_views, metavar="CxS", help=f"clips x crops {meaning}")

    def add_frames_fps(self) -> None:
        """Add `--frames-fps`, the rate of folders of images, which nothing in them says."""
        self.add_argument("--frames-fps", type=float, default=FRAMES_FPS, metavar="FPS",
                          help="rate at which folders of images were extracted "
                          f"({FRAMES_FPS:g})")  # fmt: skip
        self._rates.append("--frames-fps")

    def add_window(self, thing: str) -> None:
        """Add `--window`, `--crops` and `--multi-label`, of windows that slide.

        Args:
            thing: what the command calls a window.
        """
        self.add_argument("--window", type=duration, metavar="TIME",
                          help=f"that a {thing} spans, for models that take frames of equal parts "
                          "of a video; others know it")  # fmt: skip
        self.add_argument("--crops", type=int, default=1, choices=[1, 3],
                          help=f"of each {thing}: the centre, or three (1)")  # fmt: skip
        self.add_argument("--multi-label", action=argparse.BooleanOptionalAction, default=None,
                          help="each class by itself: several at a time (as the weights "
                          "say)")  # fmt: skip

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Parse the words after the program's name, and check the numbers of shared options.

        Raises:
            UserError: one can't be; or as `CommandParser.parse`.
        """
        args = super().parse(argv)
        self.need_positive(args, *self._counts)
        self.need_above_zero(args, *self._rates)
        return args


def _views(word: str) -> str:
    """Return views as they were given, if they are some."""
    views_of(word)
    return word
