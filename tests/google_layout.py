"""ViTs in the layout of Google's .npz files, with random values: what no download is needed for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

WIDTHS = {"Ti": (192, 3), "B": (768, 12)}


def google_vit(
    size: str = "Ti",
    patch: int = 16,
    image: int = 224,
    depth: int = 2,
    classes: int = 7,
    *,
    big_vision: bool = False,
    cls: bool = True,
    stacked: bool = False,
) -> dict[str, np.ndarray]:
    """Arrays by name, as the published files have them; no prefix."""
    rng = np.random.default_rng([patch, image, depth])
    width, heads = WIDTHS[size]

    def normal(*shape: int, std: float = 0.03) -> np.ndarray:
        return (std * rng.standard_normal(shape)).astype(np.float32)

    def norm(name: str) -> dict[str, np.ndarray]:
        return {f"{name}/scale": 1 + normal(width), f"{name}/bias": normal(width)}

    # Modules of a block were numbered over all kinds at first, and by kind in big_vision.
    second, attn, mlp = (1, 0, 0) if big_vision else (2, 1, 3)
    blocks = []
    for _ in range(depth):
        attention = f"MultiHeadDotProductAttention_{attn}"
        block = norm("LayerNorm_0") | norm(f"LayerNorm_{second}")
        for name in ("query", "key", "value"):
            block[f"{attention}/{name}/kernel"] = normal(width, heads, width // heads)
            block[f"{attention}/{name}/bias"] = normal(heads, width // heads)
        block[f"{attention}/out/kernel"] = normal(heads, width // heads, width)
        block[f"{attention}/out/bias"] = normal(width)
        block[f"MlpBlock_{mlp}/Dense_0/kernel"] = normal(width, 4 * width)
        block[f"MlpBlock_{mlp}/Dense_0/bias"] = normal(4 * width)
        block[f"MlpBlock_{mlp}/Dense_1/kernel"] = normal(4 * width, width)
        block[f"MlpBlock_{mlp}/Dense_1/bias"] = normal(width)
        blocks.append(block)

    positions = "pos_embedding" if big_vision else "Transformer/posembed_input/pos_embedding"
    arrays = {
        "embedding/kernel": normal(patch, patch, 3, width),
        "embedding/bias": normal(width),
        positions: normal(1, int(cls) + (image // patch) ** 2, width, std=0.3),
        **norm("Transformer/encoder_norm"),
        "head/kernel": normal(width, classes),
        "head/bias": normal(classes),
    }
    if cls:
        arrays["cls"] = normal(1, 1, width, std=0.3)
    if stacked:
        for key in blocks[0]:
            arrays[f"Transformer/encoderblock/{key}"] = np.stack([block[key] for block in blocks])
    else:
        for i, block in enumerate(blocks):
            arrays |= {f"Transformer/encoderblock_{i}/{key}": x for key, x in block.items()}
    return arrays


def save(path: Path, arrays: dict[str, np.ndarray], prefix: str = "") -> Path:
    """Writes the .npz file."""
    np.savez(path, **{prefix + key: value for key, value in arrays.items()})
    return path
