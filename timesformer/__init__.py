"""TimeSformer: space-time attention for video, rebuilt from the paper (arXiv 2102.05095).

import timesformer

timesformer.list_models("divST")
model = timesformer.create_model("timesformer_divST_8x32_224_K400", num_classes=10)
model = timesformer.TimeSformer.from_pretrained("path/to/folder")
timesformer.load("runs/a").predict("video.mp4")
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Imported when first asked for: `import timesformer` alone takes no time and needs no torch.
_LAZY = {
    "TimeSformer": "timesformer.models.vit",
    "create_model": "timesformer.models.create",
    "export": "timesformer.inference.export",
    "list_models": "timesformer.models.create",
    "load": "timesformer.inference.load",
    "load_pretrained": "timesformer.models.pretrained",
    "predict": "timesformer.inference.predictor",
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'timesformer' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
