"""Programs of torch.export, computed by torch, which need no code of a model."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from timesformer.inference.formats.base import KEY, About, Format, Run
from timesformer.utils.errors import WeightsError

EXTRA = f"{KEY}.json"
KNOWN = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|data/(weights|constants)/\w+_config\.json|"
    r"models/\w+\.json|data/sample_inputs/\w+\.pt|extra/[\w.]+|[\w.]+|\.data/\w+"
)
"""Files of an archive that torch reads without running code."""


class TorchExport(Format):
    """A .pt2 archive."""

    name, suffix, runtime = "torch-export", ".pt2", "torch"
    for_int8 = None

    def write(
        self, program: ExportedProgram, path: Path, about: About, clips: Sequence[Tensor]
    ) -> None:
        """Write one file."""
        buffer = io.BytesIO()  # torch itself ends the process where the disk is full
        torch.export.save(program, buffer, extra_files={EXTRA: about.to_text()})
        path.write_bytes(buffer.getbuffer())

    def open(self, path: Path) -> tuple[str | None, Run]:
        """Read a file, unless code would run with it.

        Raises:
            WeightsError: it holds objects of Python.
        """
        refuse_objects(path)
        extra: dict[str, Any] = {EXTRA: ""}
        program = torch.export.load(path, extra_files=extra).module()

        def run(clips: Tensor) -> Tensor:
            with torch.no_grad():
                logits: Tensor = program(clips)
            return logits

        return extra[EXTRA] or None, run


def refuse_objects(path: Path) -> None:
    """Refuse an archive in which more than tensors and JSON would be read.

    torch would unpickle objects that the archive lists, and load libraries in it. What remains is
    a program all the same: torch evaluates the expressions in it that say sizes.

    Raises:
        WeightsError: it holds such.
        zipfile.BadZipFile, ValueError: it is no such archive, or damaged.
    """
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():  # torch doesn't look at the sums
            raise zipfile.BadZipFile(f"{damaged} isn't what it was when it was written")
        for name in archive.namelist():
            inside = name.partition("/")[2]
            lists = inside.startswith("data/") and inside.endswith("_config.json")
            pickled = lists and any(_asks(json.loads(archive.read(name))))
            if pickled or not KNOWN.fullmatch(inside):
                raise WeightsError(
                    f"{path}: refused: {name} isn't a tensor or text, and could run code"
                )


def _asks(said: Any) -> Iterator[bool]:
    """Yield every `use_pickle` in what a list of an archive says."""
    if isinstance(said, dict):
        yield bool(said.get("use_pickle"))
        for value in said.values():
            yield from _asks(value)
    elif isinstance(said, list):
        for value in said:
            yield from _asks(value)
