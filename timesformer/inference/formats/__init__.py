"""Files that a model is exported to, and what computes them: one file a format."""

from timesformer.inference.formats.base import About, Format, Run
from timesformer.inference.formats.onnx import Onnx
from timesformer.inference.formats.openvino import OpenVino
from timesformer.inference.formats.torch_export import TorchExport

__all__ = ["FORMATS", "About", "Format", "Run", "format_of"]

FORMATS: dict[str, Format] = {f.name: f for f in (Onnx(), TorchExport(), OpenVino())}
"""Formats by the name that `timesformer export --to` takes."""


def format_of(source: object) -> Format | None:
    """Return the format that a file's name says it is in; None of any other source of weights."""
    name = str(source).lower()
    return next((f for f in FORMATS.values() if name.endswith(f.suffix)), None)
