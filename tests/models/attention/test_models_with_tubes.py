"""Models that see some of the patches: the tokens of these, at their places, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attention_contract import registered_cases, small_model
from golden_recipe import clip_for, fill_
from torch import Tensor

from timesformer.clips.tubes import Tubes, draw_tubes
from timesformer.models.base import VideoModel
from timesformer.models.others.factorised_encoder import FactorisedEncoder
from timesformer.models.vit import VisionTransformer

CASES = registered_cases()


def tubes_for(model: VisionTransformer | FactorisedEncoder, clip: Tensor) -> Tubes:
    rngs = [np.random.default_rng(i) for i in range(len(clip))]
    return draw_tubes(model.patch_grid(*clip.shape[-2:]), 0.5, rngs)


@torch.no_grad()
@pytest.mark.parametrize("tubelet", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_tokens_are_those_of_the_positions(case: str, tubelet: int) -> None:
    """Also where pos_embed is resized, which is for 4×4 patches."""
    model = fill_(small_model(case, tubelet_size=tubelet), seed=3).eval()
    k = model.num_prefix_tokens
    for shape in [(2, 3, 4, 64, 64), (2, 3, 2, 48, 80)]:
        clip = clip_for("tubes", shape)
        tubes = tubes_for(model, clip)
        whole, (B, T, h, w) = model.embed(clip)
        tokens, grid = model.embed(clip, tubes)
        assert grid == (B, T, tubes.height, tubes.width)
        kept, N = tubes.positions, h * w
        if model.one_sequence_per_clip:
            patches = whole[:, k:].unflatten(1, (N, T))
            expected = torch.stack([one[keep] for one, keep in zip(patches, kept, strict=True)])
            expected = expected.flatten(1, 2)
        else:
            patches = whole[:, k:].unflatten(0, (B, T))
            expected = torch.stack([one[:, keep] for one, keep in zip(patches, kept, strict=True)])
            expected = expected.flatten(0, 1)
        torch.testing.assert_close(tokens[:, k:], expected, atol=1e-5, rtol=0)
        assert tokens[:, :k].equal(whole[:, :k])


@pytest.mark.parametrize("case", CASES)
def test_every_parameter_gets_a_gradient(case: str) -> None:
    model = fill_(small_model(case), seed=1).train()
    clip = clip_for("grad", (2, 3, 4, 64, 64))
    model(clip, tubes_for(model, clip)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@torch.no_grad()
@pytest.mark.parametrize("tubelet", [1, 2])
def test_factorised_encoders_keep_the_same_positions_in_every_frame(tubelet: int) -> None:
    model = FactorisedEncoder(
        32, 8, 5, 4, embed_dim=24, depth=2, temporal_depth=1, num_heads=3, tubelet_size=tubelet
    )
    fill_(model, seed=2).eval()
    clip = clip_for("tubes", (2, 3, 4, 32, 32))
    everything = Tubes(torch.arange(16).expand(2, -1), 1, 16)
    torch.testing.assert_close(model(clip, everything), model(clip), atol=2e-6, rtol=0)
    tubes = tubes_for(model, clip)
    logits = model(clip, tubes)
    left_out = torch.ones(2, 16, dtype=torch.bool).scatter_(1, tubes.positions, False)
    pixels = left_out.view(2, 4, 4).repeat_interleave(8, 1).repeat_interleave(8, 2)
    changed = torch.where(pixels[:, None, None], torch.rand_like(clip), clip)
    assert model(changed, tubes).equal(logits)
    assert not model(changed).equal(model(clip))


def test_other_models_have_no_patches_to_leave_out() -> None:
    assert VideoModel().patch_grid(32, 32) is None
