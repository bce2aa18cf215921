"""What every attention scheme promises, as functions of a case: "scheme" or "scheme+option"."""

from __future__ import annotations

from typing import Any

import torch
from attention_oracles import Oracle
from golden_model import tiny_model
from golden_recipe import clip_for, fill_
from torch import Tensor

from timesformer.models.attention import ATTENTION_REGISTRY, SpaceTimeBlock, TokenGrid
from timesformer.models.attention.layers import set_fused_attention
from timesformer.models.vit import VisionTransformer

WIDTH = 24
OPTIONS = {"local_window": "centred"}  # values of options that aren't True or False
# Sides that differ, even and odd sizes of every axis, and axes of length one.
GRIDS = [
    TokenGrid(batch=2, frames=3, height=2, width=4),
    TokenGrid(batch=1, frames=4, height=3, width=5),
    TokenGrid(batch=1, frames=4, height=4, width=2),
    TokenGrid(batch=2, frames=1, height=3, width=4),
    TokenGrid(batch=1, frames=2, height=1, width=4),
    TokenGrid(batch=1, frames=5, height=5, width=1),
    TokenGrid(batch=1, frames=1, height=1, width=1),
]


def registered_cases() -> list[str]:
    """Every registered scheme, plain and with each of its options."""
    return [
        "+".join(filter(None, (name, option)))
        for name, block in ATTENTION_REGISTRY
        for option in ("", *sorted(block.options))
    ]


def block_class(case: str) -> type[SpaceTimeBlock]:
    return ATTENTION_REGISTRY.get(case.split("+")[0])


def small_model(case: str, **changes: Any) -> VisionTransformer:
    """Width 24, two blocks, 4 frames of 4×4 patches, 5 classes."""
    scheme, *options = case.split("+")
    sizes = {"embed_dim": WIDTH, "depth": 2, "num_classes": 5}
    values = {name: OPTIONS.get(name, True) for name in options}
    return tiny_model(scheme, **(sizes | values | changes))


def random_tokens(case: str, grid: TokenGrid) -> Tensor:
    """Tokens in the layout that the scheme's blocks expect."""
    block, N = block_class(case), grid.height * grid.width
    cls = int(block.cls_token)
    if block.one_sequence_per_clip:
        return torch.randn(grid.batch, cls + N * grid.frames, WIDTH)
    return torch.randn(grid.batch * grid.frames, cls + N, WIDTH)


@torch.no_grad()
def check_dense(case: str, oracle: Oracle, grid: TokenGrid) -> float:
    """Folded attention, fused and plain, equals dense attention; returns the difference."""
    block = fill_(small_model(case), seed=5).eval().blocks[1]
    x = random_tokens(case, grid)
    expected, worst = oracle(block, x, grid), 0.0
    for fused in (True, False):
        set_fused_attention(block, fused)
        actual = block.attend(x, grid)
        torch.testing.assert_close(actual, expected, atol=3e-6, rtol=0)
        worst = max(worst, (actual - expected).abs().max().item())
    return worst


def check_gradients(case: str) -> None:
    """Every parameter gets a finite gradient other than zero."""
    for shape in [(2, 3, 4, 64, 64), (2, 3, 3, 48, 80)]:
        model = fill_(small_model(case), seed=1).train()
        model(clip_for("grad", shape)).square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name


@torch.no_grad()
def check_sizes(case: str, shape: tuple[int, ...]) -> None:
    """Takes other sizes than built for, with the same result each time in eval mode."""
    rates = {"drop_path_rate": 0.5, "drop_rate": 0.2, "attn_drop_rate": 0.2}
    model = fill_(small_model(case, **rates)).eval()
    clip = clip_for("size", shape)
    logits = model(clip)
    assert logits.shape == (shape[0], 5)
    assert logits.isfinite().all()
    assert torch.equal(logits, model(clip))


@torch.no_grad()
def check_rows(case: str) -> None:
    """A clip's result doesn't depend on the others in its batch."""
    model = fill_(small_model(case)).eval()
    for shape in [(3, 3, 4, 64, 64), (3, 3, 3, 48, 80)]:
        clips = clip_for("rows", shape)
        alone = torch.cat([model(clip[None]) for clip in clips])
        torch.testing.assert_close(model(clips), alone, atol=2e-6, rtol=0)


def check_checkpointing(case: str) -> None:
    """Recomputing activations gives the same gradients, drop_path included."""
    clip, gradients = clip_for("ckpt", (2, 3, 4, 64, 64)), []
    for act_checkpoint in (False, True):
        model = fill_(small_model(case, act_checkpoint=act_checkpoint, drop_path_rate=0.3))
        torch.manual_seed(3)
        model.train()(clip).sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


@torch.no_grad()
def check_start(case: str, start: Oracle) -> None:
    """With its declared zeros and copies, a block does what `start` says, on any tokens."""
    model = fill_(small_model(case), seed=2).eval()
    for block in model.blocks:
        for new, old in block.image_init.items():
            source = block.get_submodule(old).state_dict()
            for name, value in block.get_submodule(new).state_dict().items():
                value.copy_(source[name])
        for name in block.zero_init:
            for parameter in block.get_submodule(name).parameters():
                parameter.zero_()
    x = random_tokens(case, GRIDS[1])
    block = model.blocks[1]
    torch.testing.assert_close(
        block.attend(x, GRIDS[1]), start(block, x, GRIDS[1]), atol=3e-6, rtol=0
    )


@torch.no_grad()
def check_still(case: str) -> None:
    """With fresh weights, any number of equal frames gives the features of a single one."""
    model = small_model(case).eval()
    image = clip_for("still", (2, 3, 1, 64, 64))
    torch.testing.assert_close(
        model.forward_features(image.expand(-1, -1, 6, -1, -1)),
        model.forward_features(image),
        atol=2e-6,
        rtol=0,
    )


@torch.no_grad()
def check_positions(case: str) -> None:
    """A scheme that says so takes any set of positions: as a row of them, it gives the same."""
    block = fill_(small_model(case), seed=6).eval().blocks[1]
    if not block.any_positions:
        return
    for grid in GRIDS:
        x, N = random_tokens(case, grid), grid.height * grid.width
        order = torch.randperm(N)
        row = grid._replace(height=1, width=N)
        expected = _reordered(block, block.attend(x, grid), order, grid)
        actual = block.attend(_reordered(block, x, order, grid), row)
        torch.testing.assert_close(actual, expected, atol=3e-6, rtol=0)


def _reordered(block: SpaceTimeBlock, x: Tensor, order: Tensor, grid: TokenGrid) -> Tensor:
    """Tokens whose patches lie in another order in each frame; CLS stays."""
    cls = int(block.cls_token)
    patches = x[:, cls:]
    if block.one_sequence_per_clip:
        patches = patches.unflatten(1, (-1, grid.frames))[:, order].flatten(1, 2)
    else:
        patches = patches[:, order]
    return torch.cat([x[:, :cls], patches], dim=1)


def check_contract(case: str, oracle: Oracle) -> None:
    """All that holds for every scheme."""
    for grid in GRIDS:
        check_dense(case, oracle, grid)
    check_gradients(case)
    for shape in [(1, 3, 1, 64, 64), (2, 3, 7, 32, 80)]:
        check_sizes(case, shape)
    check_rows(case)
    check_positions(case)
    check_checkpointing(case)
