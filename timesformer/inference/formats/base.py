"""What every format has in common: what its files say of themselves, and what it can do.

Letters: B clips, T frames, H×W pixels, K classes.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.export import ExportedProgram

from timesformer.clips.preprocessing import Preprocessing
from timesformer.utils.errors import UserError, WeightsError, how_to_install

LEAST = 0.25  # share of the weights; of the smallest transformers, patches and positions have half
KEY = "timesformer"
"""Under which a file has its JSON, whatever its format."""
CLIPS, LOGITS, BATCH = "clips", "logits", "batch"

Run = Callable[[Tensor], Tensor]
"""Maps clips (B, 3, T, H, W), any B, to logits (B, K), on the CPU."""

INPUTS = {
    "pixels": "RGB 0..255, float: resized and cut as tests do it; normalised within the graph",
    "uint8": "RGB 0..255, whole numbers; normalised within the graph",
    "normalised": "channels in the order of channel_order: (pixels / 255 - mean) / std",
}
"""What a file takes, and what its numbers are."""
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class About:
    """What an exported file says of itself.

    Attributes:
        input: one of INPUTS.
        precision: one of PRECISIONS, of what is computed inside; logits are float32.
        preprocessing: how clips are made and how a test looks at a video; sizes, views and how
            their scores are joined are always there.
        num_classes: K.
        class_names: in label order, or ().
        source: name of the weights that it was made of.
        weights_sha256: SHA-256 of their names and numbers.
        architecture: their model, as `Architecture.to_json` has it; {} where it has none.
        version: of this package when it was written.
    """

    input: str
    precision: str
    preprocessing: Preprocessing
    num_classes: int
    class_names: tuple[str, ...]
    source: str
    weights_sha256: str
    architecture: dict[str, Any]
    version: str

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of a clip: (3, T, H, W)."""
        frames, side = self.preprocessing.num_frames, self.preprocessing.crop_size
        assert frames is not None
        assert side is not None
        return 3, frames, side, side

    @property
    def dtype(self) -> torch.dtype:
        """Of the clips that it takes."""
        return torch.uint8 if self.input == "uint8" else torch.float32

    def to_text(self) -> str:
        """Return it as JSON, which says the layout of input and output too."""
        taken = {
            "name": CLIPS,
            "kind": self.input,
            "dtype": str(self.dtype).removeprefix("torch."),
            "layout": "batch, channel, frame, row, column",
            "shape": [BATCH, *self.shape],
            "values": INPUTS[self.input],
        }
        said = {
            "format": 1,
            "version": self.version,
            "source": self.source,
            "weights_sha256": self.weights_sha256,
            "precision": self.precision,
            "input": taken,
            "output": {"name": LOGITS, "dtype": "float32", "shape": [BATCH, self.num_classes]},
            "preprocessing": self.preprocessing.to_json(),
            "class_names": list(self.class_names),
            "architecture": self.architecture,
        }
        return json.dumps(said)

    @classmethod
    def from_text(cls, path: Path, text: str | None) -> About:
        """Read what `to_text` wrote.

        Raises:
            WeightsError: the file doesn't say it, or it can't be.
        """
        if not text:
            raise WeightsError(
                f"{path}: doesn't say how clips are made for it: it must be written by "
                "`timesformer export`"
            )
        try:
            said = json.loads(text)
            if said["format"] != 1:
                raise ValueError("it is of a newer version")
            about = cls(
                said["input"]["kind"],
                said["precision"],
                Preprocessing.from_json(said["preprocessing"]),
                said["output"]["shape"][1],
                tuple(said["class_names"]),
                said["source"],
                said["weights_sha256"],
                said["architecture"],
                said["version"],
            )
            if about.input not in INPUTS or [BATCH, *about.shape] != said["input"]["shape"]:
                raise ValueError("its input can't be")
        except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
            why = f"{type(error).__name__}: {error}"
            raise WeightsError(f"{path}: what it says of itself can't be read ({why})") from error
        return about


def imported(package: str) -> None:
    """Import a package of an extra.

    Raises:
        ModuleNotFoundError: it isn't installed.
        UserError: it is, and can't be imported: it, or what it needs, is of another version.
    """
    try:
        import_module(package)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise
        raise UserError(
            f"{package}: is installed, and can't be imported ({error!s:.200}): install it anew"
        ) from error


def need_products(numbers: int, others: int, instead: str) -> None:
    """Refuse int8 of matrix products for a model that has few of them.

    Args:
        numbers: of the weights of products.
        others: of all else.
        instead: what to do.

    Raises:
        UserError: they are few.
    """
    share = numbers / max(1, numbers + others)
    if share < LEAST:
        raise UserError(
            f"--int8: is for matrix products here, and they have {100 * share:.0f} % of this "
            f"model's weights: {instead}"
        )


class Format(ABC):
    """A kind of file, and what computes it. Both need packages of an extra of setup.py.

    Attributes:
        name: that people know it by.
        suffix: its files end so.
        runtime: what computes them.
        packages: that writing and computing take.
        for_int8: packages that int8 takes beside these.
        calibrates: int8 can take clips that look like those to come.
        half_graph: fp16 is a graph of half precision; else its weights alone are stored so.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    runtime: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    for_int8: ClassVar[tuple[str, ...] | None] = ()
    calibrates: ClassVar[bool] = False
    half_graph: ClassVar[bool] = True

    def versions(self) -> dict[str, str]:
        """Return the versions of what writes and computes; a file of others is made again."""
        packages = ("torch", *self.packages)
        return {package: version(package) for package in packages if find_spec(package)}

    def missing(self) -> str:
        """Say in words what isn't here that writing and computing take; "" if all is."""
        lacking = [package for package in self.packages if not find_spec(package)]
        if not lacking:
            return ""
        verb = "isn't" if len(lacking) == 1 else "aren't"
        return f"{', '.join(lacking)} {verb} installed: {how_to_install(lacking[0])}"

    def require(self, int8: bool) -> None:
        """Import what writing takes, before any work is done.

        Raises:
            ModuleNotFoundError: it isn't installed.
            UserError: it is, and can't be imported.
        """
        for package in (*self.packages, *(self.for_int8 or () if int8 else ())):
            imported(package)

    @abstractmethod
    def write(
        self, program: ExportedProgram, path: Path, about: About, clips: Sequence[Tensor]
    ) -> None:
        """Write a program that maps clips to logits.

        Args:
            program: in the precision of `about`, or in full precision.
            path: in a folder where nothing else is; more files may be needed beside it.
            about: what the file says of itself.
            clips: for calibrating int8, each (1, 3, T, H, W); or none.

        Raises:
            UserError: the format can't hold it.
            Exception: whatever the libraries raise at what they can't express.
        """

    @abstractmethod
    def open(self, path: Path) -> tuple[str | None, Run]:
        """Read a file; return its JSON, None if it has none, and what computes it.

        Raises:
            ModuleNotFoundError: the packages aren't installed.
            Exception: whatever the libraries raise at files that they can't read.
        """
