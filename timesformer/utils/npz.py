"""What numpy and its readers raise for an `.npz` that is torn, or isn't one."""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib

# TokenError and SyntaxError: an array's header is read as Python. TypeError: one array, no archive.
NPZ_DAMAGE = (
    *(ValueError, TypeError, AttributeError, EOFError, MemoryError, RuntimeError),
    *(SyntaxError, tokenize.TokenError, zipfile.BadZipFile),
    *(zlib.error, struct.error, lzma.LZMAError),
)
