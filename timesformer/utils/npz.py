"""Files of arrays: how one is written, and what readers raise for one that is torn or none."""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from timesformer.utils.files import written_whole

# TokenError and SyntaxError: an array's header is read as Python. TypeError: one array, no archive.
NPZ_DAMAGE = (
    *(ValueError, TypeError, AttributeError, EOFError, MemoryError, RuntimeError),
    *(SyntaxError, tokenize.TokenError, zipfile.BadZipFile),
    *(zlib.error, struct.error, lzma.LZMAError),
)


def write_npz(path: Path, /, synced: bool = False, **arrays: Any) -> None:
    """Write arrays by their names, uncompressed; `path` appears only when it is complete.

    Args:
        path: the file.
        synced: see `written_whole`.
        **arrays: by their names.
    """
    # An open file: np.savez adds .npz to names that end otherwise, as the temporary one does.
    with written_whole(path, synced=synced) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)
