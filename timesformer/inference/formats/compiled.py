"""Machine code that torch makes of a model, with its weights frozen: for this machine alone."""

from __future__ import annotations

import io
import os
import platform
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from timesformer.inference.formats.base import KEY, About, Format, Run
from timesformer.models.compiling import code_errors
from timesformer.utils.errors import UserError
from timesformer.utils.processor import processor_name

EXTRA = f"{KEY}.json"
OPTIONS: dict[str, Any] = {
    "freezing": True,  # weights are constants, packed as the matrix products of oneDNN want them
    "cpp.dynamic_threads": True,  # as many as torch has when it computes, not when it was compiled
}


class Compiled(Format):
    """An archive of torch's ahead-of-time compiler, for the processor and torch that made it.

    It isn't offered as something to export to: it has a library in it, which is run when it is
    read, and it can't be taken elsewhere. It lies in this user's cache.
    """

    name, suffix, runtime = "compiled", ".compiled.pt2", "torch's compiler"
    for_int8 = None

    def versions(self) -> dict[str, str]:
        """Return what the code depends on: torch, and the processor, for whose name it is made.

        Its vectors alone don't say it: others with as long ones lack some of its instructions.
        """
        return super().versions() | {
            "capability": str(torch.backends.cpu.get_cpu_capability()),
            "machine": platform.machine(),
            "processor": processor_name(),
        }

    def missing(self) -> str:
        """Say what is missing: a C++ compiler."""
        if _compiler_answers():
            return ""
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except (InvalidCxxCompiler, OSError):
            return "needs a C++ compiler: install g++ or clang++, or say in CXX where it is"
        return ""

    def require(self, int8: bool) -> None:
        """Make sure that something can be compiled.

        Raises:
            UserError: there is no C++ compiler.
        """
        if why := self.missing():
            raise UserError(f"{self.name}: {why}")

    def write(
        self, program: ExportedProgram, path: Path, about: About, clips: Sequence[Tensor]
    ) -> None:
        """Compile, which takes up to some minutes, and write one file.

        Raises:
            ConfigError: the compiler fails, or its files can't be written.
        """
        buffer = io.BytesIO()  # torch itself ends the process where the disk is full
        with code_errors(f"backend {self.name}"):
            torch._inductor.aoti_compile_and_package(
                program, package_path=buffer, inductor_configs=OPTIONS
            )
        path.write_bytes(buffer.getbuffer())
        with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
            inside = archive.namelist()[0].partition("/")[0]
            archive.writestr(f"{inside}/extra/{EXTRA}", about.to_text())

    def open(self, path: Path) -> tuple[str | None, Run]:
        """Read a file of one's own, and load the library in it.

        Raises:
            zipfile.BadZipFile: it is damaged.
            UserError: it is whole, and can't be unpacked or loaded.
        """
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"{damaged} isn't what it was when it was written")
            found = [name for name in archive.namelist() if name.endswith(f"/extra/{EXTRA}")]
            text = archive.read(found[0]).decode() if found else None
        try:
            compute = torch._inductor.aoti_load_package(str(path))
        except RuntimeError as error:
            if text is None:
                raise
            said = str(error).splitlines()[0]  # nothing to make the file again for
            raise UserError(
                f"{path}: is whole, and can't be loaded ({said:.200}): torch unpacks it into "
                f"{tempfile.gettempdir()}, which needs space and leave to run code: let TMPDIR "
                "name another folder, or take --backend torch"
            ) from error

        def run(clips: Tensor) -> Tensor:
            with torch.no_grad():
                logits: Tensor = compute(clips)
            return logits

        return text, run


def _compiler_answers() -> bool:
    """Say whether the compiler that torch takes first is there; asking torch takes seconds.

    False says nothing: torch looks for others, on Windows in another way, and CXX may have options.
    """
    if os.name == "nt":
        return False
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    try:
        subprocess.run([compiler, "--version"], check=True, capture_output=True)
    except (OSError, ValueError, subprocess.SubprocessError):
        return False
    return True
