"""Attention weights of a model, and what they say about where it looked.

A scheme regroups tokens as it likes, so rollout (arXiv 2005.00928) isn't written out for each of
them: the blocks themselves are run once more, with every layer but attention left out. A token is a
number then, rather than a vector, and attention averages numbers by the weights that were recorded.
That is linear in the first tokens, and its derivative with respect to them is their share of what
the head reads (docs/explain.md).

Beside its number a token has a mass, which says how much has been added up in it: a step adds as
much as there is, so a token and what it gathers weigh the same, whatever the scheme adds to what.

Shape letters: B batch, T frames (of tokens: T/t with tubelets), h×w patches of a frame, N = h·w;
R sequences of a clip, A heads, L queries, M keys.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Collection, Iterator, Mapping

import torch
from einops import rearrange
from torch import Tensor, nn

from timesformer.models.attention import SpaceTimeBlock, TokenGrid
from timesformer.models.attention.layers import Attention
from timesformer.models.network.vision_transformer import VisionTransformer

METHODS = ("rollout", "gradient")
TINY = 1e-12  # padding has no mass


def attention_maps(
    model: VisionTransformer, x: Tensor, layers: Collection[str] | None = None
) -> dict[str, Tensor]:
    """Return the attention weights of every step.

    Args:
        model: in eval mode, or dropout acts on the weights too.
        x: clips (B, C, T, H, W), normalised.
        layers: names of attention layers; the weights of no other are kept, nor made as a matrix.

    Returns:
        Name of the attention layer -> (B, R, A, L, M), rows summing to 1. R are the sequences that
        the scheme makes of a clip, in the order of its pattern, e.g. `(h w)` sequences of `t`
        tokens in `blocks.0.temporal_attn` of divided attention, and `t` sequences of 1 + `h w`, CLS
        first, in its `blocks.0.attn`. A layer that averages twice, as factorised dot-product
        attention does, has `.0` and `.1` after its name.
    """
    with recorded(model, lambda weights: weights, layers) as found:
        model(x)
    named = {}
    for name, weights in found.items():
        for i, each in enumerate(weights):
            label = f"{name}.{i}" if len(weights) > 1 else name
            named[label] = each.unflatten(0, (len(x), -1))
    return named


def token_shares(
    model: VisionTransformer, x: Tensor, method: str = "rollout", classes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Say how much of what the head reads comes from each patch.

    `rollout`: attention averaged over heads, and residual connections, multiplied through all
    steps (Abnar & Zuidema, Eq. 1). It doesn't know about classes. `gradient`: weights times their
    gradient of a class's logit, where both have the same sign, averaged over heads (Chefer et al.,
    arXiv 2103.15679, Eq. 5-6).

    Args:
        model: in eval mode.
        x: clips (B, C, T, H, W), normalised.
        method: one of METHODS.
        classes: (B,), those that `gradient` is about; the predicted ones when None.

    Returns:
        Shares of patches (B, T, h, w), none negative, and logits (B, K). With `rollout` they add
        up to 1, less the share of CLS.

    Raises:
        ValueError: for another method.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is none of {', '.join(METHODS)}")
    by_gradient = method == "gradient"

    def keep(weights: Tensor) -> Tensor:
        return weights if by_gradient else weights.detach().mean(1, keepdim=True)

    with torch.set_grad_enabled(by_gradient), recorded(model, keep) as found:
        tokens, grid = model.embed(x)
        if by_gradient:  # of the weights, whatever of the model learns
            tokens = tokens.detach().requires_grad_()
        logits = model.forward_head(model.encode(tokens, grid))
    if by_gradient:
        chosen = logits.argmax(1) if classes is None else classes
        score = logits.gather(1, chosen[:, None]).sum()
        found = _agreeing(found, score)
    blocks = [
        _skeleton(block, f"blocks.{i}.", found, not by_gradient)
        for i, block in enumerate(model.blocks)
    ]
    with torch.enable_grad():
        numbers = torch.zeros_like(tokens[..., :1], requires_grad=True)
        x = torch.cat([numbers, torch.ones_like(numbers)], dim=-1)
        for block in blocks:
            x = block.attend(x, grid)
        read = x[..., 0] / x[..., 1]
        read = read[:, 0] if model.num_prefix_tokens else read.mean(1)
        read = read.unflatten(0, (grid.batch, -1)).mean(1)
        (shares,) = torch.autograd.grad(read.sum(), numbers)
    return _in_place(shares[:, model.num_prefix_tokens :, 0], grid, model), logits.detach()


@contextlib.contextmanager
def recorded(
    model: nn.Module, keep: Callable[[Tensor], Tensor], layers: Collection[str] | None = None
) -> Iterator[dict[str, list[Tensor]]]:
    """Within it, attention makes its matrix, and what `keep` makes of (B·R, A, L, M) is kept.

    A layer's list has what it averaged by in the order in which it did.
    """
    found: dict[str, list[Tensor]] = {}

    def listen(name: str, attn: Attention) -> None:
        kept = found[name] = []
        hook = attn.attn_drop.register_forward_hook(lambda _, __, out: kept.append(keep(out)))
        stack.callback(hook.remove)
        stack.callback(setattr, attn, "fused", attn.fused)
        attn.fused = False

    with contextlib.ExitStack() as stack:
        for name, module in model.named_modules():
            if isinstance(module, Attention) and (layers is None or name in layers):
                listen(name, module)
        yield found


class Averaging(Attention):
    """Attention without its projections: numbers are averaged by given weights.

    Tokens are (…, 2), a number and its mass. What is returned is to be added to them.

    Args:
        num_heads: A.
        weights: what each call of `mix` averages by, (B·R, A or 1, L, M).
        share: a token and what it gathers weigh the same. Else it is added as it is.
    """

    def __init__(self, num_heads: int, weights: Iterator[Tensor], share: bool) -> None:
        nn.Module.__init__(self)
        self.num_heads = num_heads
        self.weights = weights
        self.share = share

    def split_heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B·R, L, 2) as queries, keys and values of every head."""
        x = x[:, None].expand(-1, self.num_heads, -1, -1)
        return x, x, x

    def mix(self, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Average values (…, M, 2) for queries (…, L, 2)."""
        number, mass = v[..., :1], v[..., 1:]
        if self.share:
            gathered = next(self.weights) @ (number / mass.clamp(min=TINY))
            return torch.cat([gathered, torch.ones_like(gathered)], dim=-1) * q[..., 1:]
        gathered = next(self.weights) @ number
        return torch.cat([gathered, torch.zeros_like(gathered)], dim=-1)

    def join_heads(self, x: Tensor) -> Tensor:
        """Average over heads: (B·R, A, L, 2) -> (B·R, L, 2)."""
        return x.mean(1)


def _skeleton(
    block: nn.Module, prefix: str, found: Mapping[str, list[Tensor]], share: bool
) -> SpaceTimeBlock:
    """Return a block that regroups tokens as this one does, and has no layer but `Averaging`."""
    assert isinstance(block, SpaceTimeBlock)
    skeleton = copy.copy(block)
    skeleton._modules = {
        name: Averaging(part.num_heads, iter(found[prefix + name]), share)
        if isinstance(part, Attention)
        else nn.Identity()
        for name, part in block.named_children()
    }
    return skeleton


def _agreeing(found: dict[str, list[Tensor]], score: Tensor) -> dict[str, list[Tensor]]:
    """Return weights times the score's gradient by them, averaged over heads, where positive."""
    gradients = iter(torch.autograd.grad(score, [w for kept in found.values() for w in kept]))
    return {
        name: [(w.detach() * next(gradients)).clamp(min=0).mean(1, keepdim=True) for w in kept]
        for name, kept in found.items()
    }


def _in_place(shares: Tensor, grid: TokenGrid, model: VisionTransformer) -> Tensor:
    """Patches in the order of the tokens -> (B, T, h, w)."""
    if model.one_sequence_per_clip:
        return rearrange(shares, "b (h w t) -> b t h w", h=grid.height, t=grid.frames)
    return rearrange(shares, "(b t) (h w) -> b t h w", b=grid.batch, h=grid.height)
