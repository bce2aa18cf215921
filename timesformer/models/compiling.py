"""Blocks that torch.compile makes one code of, which serves all of them.

What a block computes is compiled, and not the model: twelve equal blocks take one compilation, and
the state dict is what it was. Their weights are inputs of the code; so is what differs between
blocks (the rate of DropPath) or micro-batches (which part of a batch it is), and the batch may be
of any size: one of a single clip is compiled by itself, and so are training, evaluation and another
dtype.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from timesformer.models.attention import SpaceTimeBlock, TokenGrid
from timesformer.models.attention.dropping import DropPath, Dropping
from timesformer.models.attention.layers import has_hooks
from timesformer.utils import stopping
from timesformer.utils.checkpoint import bare
from timesformer.utils.errors import ConfigError, in_one_line
from timesformer.utils.logging import get_logger

logger = get_logger(__name__)

# Compilations of one block that a process may need: training, evaluation, other sizes and dtypes.
# Beyond, torch gives up, which `fullgraph` makes an error: it would be slow for a reason unseen.
MOST = 64
# Dropout draws as it does without compiling.
OPTIONS: dict[str, Any] = {"fallback_random": True}


def compile_blocks(asked: str, *models: nn.Module, backend: str = "inductor") -> None:
    """Let the blocks of models be compiled when they compute first, in place.

    Before ranks share the model (`fully_shard`), after it is wrapped in DistributedDataParallel or
    before. A copy of it is compiled as well, and by the same code.

    Args:
        asked: the key or option that asks for it, for messages.
        *models: on their device.
        backend: of torch.compile.

    Raises:
        ConfigError: a model has no such blocks; or nothing can be compiled here.
    """
    for model in models:
        if not _blocks(model):
            raise ConfigError(
                f"{asked} compiles the blocks of space-time attention, and "
                f"{type(bare(model)).__name__} has none: leave it out"
            )
    if backend == "inductor":
        require_compiler(asked, next(models[0].parameters()).device)
        logger.info(
            "%s: blocks are compiled when they compute first, which takes time; the code is kept "
            "in %s",
            *(asked, _code_folder()),
        )
    # With several ranks torch would cut a block's code to fit the packets in which gradients are
    # sent; blocks are smaller than the model, so sending begins early enough without.
    torch._dynamo.config.optimize_ddp = False
    torch._dynamo.config.recompile_limit = max(MOST, torch._dynamo.config.recompile_limit)
    for model in models:
        blocks = _blocks(model)
        dropping = any(isinstance(block.drop_path, DropPath) for block in blocks)
        for block in blocks:
            kind: Any = block.__class__
            if dropping and not isinstance(block.drop_path, DropPath):
                block.drop_path = DropPath(0.0)  # the first one has none: it would be other code
            block.__class__ = _compiled(kind, backend)


def _blocks(model: nn.Module) -> list[SpaceTimeBlock]:
    return [module for module in model.modules() if isinstance(module, SpaceTimeBlock)]


def require_compiler(asked: str, device: torch.device) -> None:
    """Compile something small, to know before a run begins whether that can be done here.

    Raises:
        ConfigError: it can't.
    """
    try:
        torch.compile(_trial, fullgraph=True)(torch.ones(8, device=device))
    except Exception as error:
        raise _no_code(asked, error) from error


@contextmanager
def code_errors(asked: str) -> Iterator[None]:
    """Say in a line what keeps torch from making code, or from reading what was made before.

    Its files don't get their names when they are whole: of a process that was killed with its
    compiler an empty one is left, which every later one would read.

    Args:
        asked: the key or option that asks for code.

    Raises:
        ConfigError: instead of torch's error.
        Stopped: this process was asked to stop, and its compiler was ended with it.
    """
    try:
        yield
    # The first is of what makes code, not of what is traced; the others come of code that is there.
    except (torch._dynamo.exc.ShortenTraceback, ImportError, OSError) as error:
        if stopping.asked():  # clusters send signals to all processes of a job
            raise stopping.stopped(
                "code was being compiled, and the compiler was stopped, too: the same command goes "
                "on from the newest checkpoint"
            ) from error
        raise _no_code(asked, error) from error


def _no_code(asked: str, error: Exception) -> ConfigError:
    error = getattr(error, "inner_exception", error)
    # Of a compiler's output, the first line that says it.
    lines = str(getattr(error, "output", "") or error).splitlines() or [type(error).__name__]
    said = next((line for line in lines if "error" in line.lower()), lines[0]).strip()
    return ConfigError(
        f"{asked}: torch.compile can't make code here ({in_one_line(said):.300}): it needs a C++ "
        "compiler (g++ or clang++, or what CXX names), Triton for a GPU, and space for its files "
        f"in {_code_folder()} (or where TORCHINDUCTOR_CACHE_DIR says), which a killed process may "
        "have left damaged: delete that folder then; or leave compiling out"
    )


def _code_folder() -> str:
    """Return where torch keeps code, whether it is there or not."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir  # few need it

    asked = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    return str(Path(asked or default_cache_dir()).absolute())


def _trial(x: Tensor) -> Tensor:
    return torch.sin(x) + 1


@cache
def _say_once(line: str) -> None:
    logger.info("%s", line)


class _Compiled:
    """Comes before a scheme's class in blocks that are compiled."""


@cache
def _compiled(kind: type[SpaceTimeBlock], backend: str) -> type[SpaceTimeBlock]:
    """Return a class of the same name whose forward is compiled; of one that is, itself."""
    if issubclass(kind, _Compiled):
        return kind
    options = OPTIONS if backend == "inductor" else None

    @torch.compile(fullgraph=True, backend=backend, options=options)
    def run(block: SpaceTimeBlock, x: Tensor, grid: TokenGrid, *cls_only: bool) -> Tensor:
        # Said by x alone: as a number of its own the batch would be another input, and compiled
        # twice before torch took it for one that varies.
        per_clip = 1 if kind.one_sequence_per_clip else grid.frames
        return kind.forward(block, x, grid._replace(batch=x.shape[0] // per_clip), *cls_only)

    def forward(self: Any, x: Tensor, grid: TokenGrid, cls_only: bool = False) -> Tensor:
        """Map tokens as the scheme's class does, by compiled code."""
        more = (True,) if cls_only else ()  # which not every scheme's forward takes
        inner = [module for module in self.modules() if module is not self]
        if has_hooks(*inner):  # which compiled code wouldn't call
            _say_once(f"a hook looks into {kind.__name__}: while it is there it isn't compiled")
            uncompiled: Tensor = kind.forward(self, x, grid, *more)
            return uncompiled
        if self.training:
            for module in inner:
                if isinstance(module, Dropping):
                    module.tell()
        torch._dynamo.maybe_mark_dynamic(x, 0)
        with code_errors("compiled blocks"):
            result: Tensor = run(self, x, grid._replace(batch=0), *more)
        return result

    body = {"forward": forward, "takes_cls_only": kind.takes_cls_only}
    body |= {"__doc__": kind.__doc__, "__module__": kind.__module__}
    return type(kind.__name__, (_Compiled, kind), body)
