"""The registry of models, apart from `build.py` so that model files can import it."""

from __future__ import annotations

from fvcore.common.registry import Registry

MODEL_REGISTRY = Registry("MODEL")
MODEL_REGISTRY.__doc__ = """Functions that make a model from a config: `(cfg) -> nn.Module`.

The model maps a float clip batch (B, 3, T, H, W) to logits (B, MODEL.NUM_CLASSES).
"""
