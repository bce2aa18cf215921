"""Models whose weights look like a ViT's here and compute something else: refused by name."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

_DISTILLED = (
    "a distilled DeiT: its distillation token and second head have no place here; take the model "
    "that was trained without them"
)
_REGISTERS = "a ViT with register tokens, which no model here has; take one without registers"
_GATED = "a ViT with gated MLPs (SwiGLU), which no model here has; take one with plain MLPs"
TORCHVISION = (
    "a ViT of torchvision (vit_b_16, …): its names aren't read here, though a ViT here computes "
    "the same; take one of timm, e.g. timm/vit_base_patch16_224.augreg_in21k_ft_in1k"
)
_MVIT = (
    "an MViT of PySlowFast or pytorchvideo, whose names aren't read here; torchvision/mvit_v1_b "
    "and torchvision/mvit_v2_s are such weights, for 16 frames"
)
_TELLING = (
    (".attn.pool_k.weight", _MVIT),
    (".attn.pool_q.weight", _MVIT),
    ("rev_backbone.", "a reversible network of PySlowFast, which no model here is"),
    (
        "backbone.s1.pathway0_",
        "a 3D CNN inside PySlowFast's contrastive training; save the part under backbone. alone",
    ),
    ("encoder.layers.encoder_layer_", TORCHVISION),
    (
        ".timeattn.",
        "the space-time transformer of Frozen in Time, EgoVLP or LaViLa: its CLS attends to all "
        "patches of all frames in both steps, and its spatial step is added to the input of the "
        "temporal one, which no scheme here computes",
    ),
    ("dist_token", _DISTILLED),
    ("head_dist", _DISTILLED),
    (".mlp.fc1_g.", _GATED),
    (".mlp.fc1_x.", _GATED),
    (".mlp.w12.", _GATED),
    (".mlp.w1.", _GATED),
    ("reg_token", _REGISTERS),
    ("register_tokens", _REGISTERS),
)


def refuse(state: Mapping[str, Tensor]) -> None:
    """Make sure that a model is none of those.

    Raises:
        ValueError: saying which it is, and why it isn't loaded.
    """
    for part, what in _TELLING:
        if found := next((key for key in state if part in f".{key}"), None):
            raise ValueError(f"{found}: weights of {what}")
