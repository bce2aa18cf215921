"""The same numbers from the same command on the same machine: DETERMINISTIC."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from timesformer.utils.errors import ConfigError

VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
FIXED = (":4096:8", ":16:8")  # the values with which cuBLAS gives the same sums each time


def fix_workspace() -> None:
    """Let cuBLAS work in a fixed way, which it is told before CUDA starts, or not at all.

    Raises:
        ConfigError: it was told otherwise, or CUDA has started without.
    """
    said = os.environ.get(VARIABLE, "")
    if said in FIXED:
        return
    if said:
        raise ConfigError(f"DETERMINISTIC True: {VARIABLE} is {said:.60}; it has to be {FIXED[0]}")
    if torch.cuda.is_initialized():
        raise ConfigError(
            f"DETERMINISTIC True: CUDA has started already: set {VARIABLE}={FIXED[0]} in the "
            "environment before this program starts"
        )
    os.environ[VARIABLE] = FIXED[0]


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Let torch use operations that give the same each time, or raise where it has none.

    Raises:
        ConfigError: the model has an operation without such a form on this device.
    """
    if not wanted:
        yield
        return
    fix_workspace()
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    modes = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        raise ConfigError(
            f"DETERMINISTIC True: {str(error).partition('.')[0]:.200}: set it to False for this "
            "model on this device"
        ) from error
    finally:
        torch.use_deterministic_algorithms(modes, warn_only=warn_only)
        cudnn.deterministic, cudnn.benchmark = before
