"""Entry points of torch.hub: `torch.hub.load(REPOSITORY, "create_model", NAME, **overrides)`."""

from __future__ import annotations

dependencies = [
    "torch",
    "torchvision",
    "timm",
    "einops",
    "fvcore",
    "safetensors",
    "tabulate",
    "yaml",
]

from timesformer.models.create import create_model, from_pretrained, list_models  # noqa: E402

__all__ = ["create_model", "from_pretrained", "list_models"]
