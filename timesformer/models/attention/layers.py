"""The layers that every attention scheme is made of.

Shape letters: B batch, L tokens of one sequence, D embedding width, A heads.
`Mlp` computes what timm's does; importing timm for it takes seconds.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timesformer.models.attention.linear import Linear

__all__ = [
    "Attention",
    "Mlp",
    "has_hooks",
    "hidden_width",
    "set_fused_attention",
]

MOST_ROWS = 65_535
"""Sequences that CUDA's kernels of attention take at a time. Along time there is one for every
patch: 334 clips of 14 × 14 patches."""


class Attention(nn.Module):
    """Multi-head self-attention over one sequence (paper, Eq. 1-6 without the mask).

    Two paths give the same numbers: the fused one (`fused=True`, the default) and a plain one that
    makes the attention matrix. The plain path serves export and inspection: a forward hook on
    `attn_drop` sees the attention weights, (B, A, L, L), rows summing to one.

    Args:
        dim: embedding width D.
        num_heads: number of heads A; must divide D.
        qkv_bias: whether the joint query/key/value projection has a bias.
        qk_scale: factor on q·k; (D/A)^-0.5 when None.
        attn_drop: dropout on attention weights, while training.
        proj_drop: dropout after the output projection, while training.

    Raises:
        ValueError: if `dim` isn't a multiple of `num_heads`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"embedding width {dim} isn't a multiple of {num_heads} heads")
        self.num_heads = num_heads
        self.scale = qk_scale or (dim // num_heads) ** -0.5
        self.fused = True
        self.qkv = Linear(dim, dim * 3, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Attend within each sequence: (B, L, D) -> (B, L, D).

        Args:
            x: token sequences.
            key_mask: (B, L) bool, False where a token is padding that nobody may look at; every
                sequence needs a True.
        """
        return self.join_heads(self.mix(*self.split_heads(x), key_mask))

    def split_heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, L, D) -> queries, keys and values, each (B, A, L, D/A)."""
        B, L, D = x.shape
        qkv = self.qkv(x).reshape(B, L, 3, self.num_heads, D // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def mix(self, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Average values by softmax(q·k): queries (B, A, L, D/A) -> (B, A, L, D/A).

        Args:
            q: queries.
            k: keys (B, A, M, D/A).
            v: values, likewise.
            key_mask: (B, M) bool, False at keys that nobody may look at, or (B, L, M), for each
                query by itself; every query needs a True.
        """
        mask = None
        if key_mask is not None:
            mask = key_mask[:, None] if key_mask.ndim == 3 else key_mask[:, None, None]
        if self.fused:
            # SDPA drops whenever it is told to: unlike nn.Dropout it doesn't know about eval mode.
            dropout = self.attn_drop.p if self.training else 0.0
            attend = partial(F.scaled_dot_product_attention, dropout_p=dropout, scale=self.scale)
            if torch.compiler.is_exporting() or len(q) <= MOST_ROWS:
                return attend(q, k, v, mask)
            parts = [tensor.split(MOST_ROWS) for tensor in (q, k, v)]
            masks = [None] * len(parts[0]) if mask is None else mask.split(MOST_ROWS)
            return torch.cat([attend(*each) for each in zip(*parts, masks, strict=True)])
        scores = (q * self.scale) @ k.transpose(-2, -1)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return self.attn_drop(scores.softmax(dim=-1)) @ v

    def join_heads(self, x: Tensor) -> Tensor:
        """Return what the heads gathered (B, A, L, D/A), projected -> (B, L, D)."""
        return self.proj_drop(self.proj(x.transpose(1, 2).flatten(2)))


class Mlp(nn.Module):
    """Two Linear layers with an activation between them, each followed by dropout.

    Args:
        in_features: width D of the input.
        hidden_features: width in between; D when None.
        out_features: width of the output; D when None.
        act_layer: the activation.
        drop: dropout after both layers, while training.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        act_layer: type[nn.Module] = nn.GELU,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = hidden_features or in_features
        self.fc1 = Linear(in_features, hidden)
        self.act = act_layer()
        self.drop1 = nn.Dropout(drop)
        self.fc2 = Linear(hidden, out_features or in_features)
        self.drop2 = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, D) to (…, out_features)."""
        hidden = self.fc1(x)
        # The largest tensor of a block: a second one costs pages that the system has to give.
        overwrite = self._may_overwrite(hidden)
        hidden = torch.ops.aten.gelu_(hidden) if overwrite else self.act(hidden)
        return self.drop2(self.fc2(self.drop1(hidden)))

    def _may_overwrite(self, hidden: Tensor) -> bool:
        """Say whether nobody but the activation sees what `fc1` returns: no gradient, no hook."""
        act = self.act
        return (
            not torch.compiler.is_compiling()
            and not torch._C._are_functorch_transforms_active()
            and type(hidden) is Tensor
            and not hidden.requires_grad
            and isinstance(self.fc1, nn.Linear)  # whose result is a tensor of its own
            and type(act) is nn.GELU
            and act.approximate == "none"
            and not has_hooks(self.fc1, act)
        )


def has_hooks(*modules: nn.Module) -> bool:
    """Say whether somebody looks at what one of the modules gets or gives.

    By a hook of its own or of all modules, or by a `forward` that was put into the module. What
    shares a module's parameters between ranks (FSDP) has hooks, too, and doesn't look.
    """
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return nn.modules.module._has_any_global_hook() or any(
        "forward" in module.__dict__
        or any(_looks(hook) for kind in kinds for hook in getattr(module, kind).values())
        for module in modules
    )


def _looks(hook: object) -> bool:
    return not (getattr(hook, "__module__", None) or "").startswith("torch.distributed.fsdp")


def hidden_width(dim: int, mlp_ratio: float) -> int:
    """Return the hidden width of an MLP: D times the ratio, rounded down as published.

    A ratio that was worked out from a width gives that width again, whatever its last bit.
    """
    return int(dim * mlp_ratio + 1e-6)


def set_fused_attention(model: nn.Module, fused: bool) -> None:
    """Switch every `Attention` of `model` to the fused or the plain path, in place."""
    for module in model.modules():
        if isinstance(module, Attention):
            module.fused = fused
