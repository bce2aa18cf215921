"""A model as a program without its code, and that in the hands of a format's exporter.

Letters: B clips, T frames, H×W pixels, K classes.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from timesformer.clips.transform import Normalize
from timesformer.inference.formats import About, Format
from timesformer.inference.formats.base import BATCH
from timesformer.inference.measure import noise
from timesformer.models.attention import SpaceTimeBlock
from timesformer.utils.errors import UserError


class Graph(nn.Module):
    """What a file computes: clips as they come -> logits, float32."""

    def __init__(self, model: nn.Module, normalize: Normalize | None, half: bool = False) -> None:
        """Take a model, what normalises its input within the graph, and whether it is in half."""
        super().__init__()
        self.model, self.normalize, self.half_precision = model, normalize, half

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (B, 3, T, H, W) -> logits (B, K)."""
        if self.normalize is not None:
            clips = self.normalize(clips)
        logits: Tensor = self.model(clips.half() if self.half_precision else clips)
        return logits.float()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what exporters say of themselves from people, who can do nothing about it."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def traced(graph: Graph, kind: Format, about: About) -> ExportedProgram:
    """Make a program of the model that takes any number of clips.

    Raises:
        UserError: torch can't.
    """
    half = about.precision == "fp16" and kind.half_graph
    # A copy of the modules, with the same weights; `half` changes weights in place.
    weights = [] if half else [*graph.model.parameters(), *graph.model.buffers()]
    model = copy.deepcopy(graph.model, {id(tensor): tensor for tensor in weights})
    for block in model.modules():
        if isinstance(block, SpaceTimeBlock):
            block.join_projections()
    graph = Graph(model.half() if half else model, graph.normalize, half)
    dynamic = ({0: Dim(BATCH, min=1)},)
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(graph, (noise(about, 2),), dynamic_shapes=dynamic)
    except OSError as error:  # torch makes its folder for code, whether there is any or not
        raise UserError(
            f"torch.export: {error.filename}: can't be written ({error.strerror}): let "
            "TORCHINDUCTOR_CACHE_DIR name another folder"
        ) from error
    except Exception as error:  # whatever torch raises at what it can't express
        raise _cant("torch.export", about, error) from error
    for node in program.graph.nodes:  # which would tell where source files lie on this machine
        node.meta.pop("stack_trace", None)
    return program


def written(
    kind: Format, program: ExportedProgram, place: Path, about: About, clips: Sequence[Tensor]
) -> None:
    """Write a program by a format; see `Format.write`.

    Raises:
        UserError: the format can't hold it, or its libraries can't express it.
        OSError: the file can't be written.
    """
    try:
        with _quiet():
            kind.write(program, place, about, clips)
    except (UserError, ModuleNotFoundError, OSError):
        raise
    except Exception as error:  # whatever the libraries raise at what they can't express
        raise _cant(kind.name, about, error) from error


def _cant(what: str, about: About, error: Exception) -> UserError:
    name = about.architecture.get("model", "this model")
    lines = str(error).strip().splitlines() or [""]
    return UserError(f"{what} can't express {name}: {type(error).__name__}: {lines[0]:.300}")
