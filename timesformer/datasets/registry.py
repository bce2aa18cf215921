"""The registry of data sets, apart from `build.py` so that the catalogue's files can import it."""

from __future__ import annotations

from fvcore.common.registry import Registry

DATASET_REGISTRY = Registry("DATASET")
DATASET_REGISTRY.__doc__ = """Classes or functions `(cfg, mode) -> Dataset`, mode train|val|test.

Items are `(inputs, label, index, meta)`; see `VideoDataset`, which most of them are.
"""
