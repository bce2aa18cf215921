"""Contract of every registered attention scheme: a new one is tested before its author tests it."""

from __future__ import annotations

import pytest
import torch
from attention_contract import (
    GRIDS,
    block_class,
    check_checkpointing,
    check_dense,
    check_gradients,
    check_positions,
    check_rows,
    check_sizes,
    check_start,
    check_still,
    random_tokens,
    registered_cases,
    small_model,
)
from attention_oracles import ORACLES, STARTS
from golden_model import tiny_model
from golden_recipe import clip_for, fill_

from timesformer.models.attention import ATTENTION_REGISTRY, TokenGrid
from timesformer.models.attention.layers import Attention, set_fused_attention
from timesformer.models.weights.load import load_pretrained

CASES = registered_cases()

IMAGE_KEYS = """norm1.weight norm1.bias attn.qkv.weight attn.qkv.bias attn.proj.weight
attn.proj.bias norm2.weight norm2.bias mlp.fc1.weight mlp.fc1.bias mlp.fc2.weight mlp.fc2.bias"""
TEMPORAL_KEYS = """temporal_norm1.weight temporal_norm1.bias temporal_attn.qkv.weight
temporal_attn.qkv.bias temporal_attn.proj.weight temporal_attn.proj.bias"""
FC_KEYS = "temporal_fc.weight temporal_fc.bias"
NEW_KEYS = {  # of a block, besides those of an image ViT
    "space_only": "",
    "joint_space_time": "",
    "divided_space_time": f"{TEMPORAL_KEYS} {FC_KEYS}",
    "space_then_time": f"{TEMPORAL_KEYS} {FC_KEYS}",
    "parallel_space_time": f"{TEMPORAL_KEYS} {FC_KEYS}",
    "sparse_local_global": """local_norm1.weight local_norm1.bias local_attn.qkv.weight
        local_attn.qkv.bias local_attn.proj.weight local_attn.proj.bias local_fc.weight
        local_fc.bias""",
    "axial": f"""{TEMPORAL_KEYS} {FC_KEYS} width_norm1.weight width_norm1.bias
        width_attn.qkv.weight width_attn.qkv.bias width_attn.proj.weight width_attn.proj.bias
        width_fc.weight width_fc.bias""",
    "factorised_self_attention": """temporal_norm1.weight temporal_norm1.bias
        temporal_attn.qkv.weight temporal_attn.qkv.bias temporal_fc.weight temporal_fc.bias""",
    "factorised_dot_product": "",
}
WITHOUT_CLS = ("factorised_self_attention", "factorised_dot_product")

# Where a key's number of copies among the keys of a query doesn't grow with the frames, or all
# keys of a query grow alike. Not so in joint and L+G, where CLS stays one key beside T copies.
CLS_BESIDE_COPIES = [c for c in CASES if c.startswith(("joint_space_time", "sparse_local_global"))]
SEES_NO_COPIES = sorted(set(CASES) - set(CLS_BESIDE_COPIES))
STARTS_AS_IMAGE = sorted(
    {case for case in CASES if case.startswith("divided")}
    | {"space_only", "space_then_time", "parallel_space_time"}
)


def test_every_scheme_has_an_oracle():
    assert sorted(CASES) == sorted(ORACLES) == sorted(STARTS)
    assert sorted(name for name, _ in ATTENTION_REGISTRY) == sorted(NEW_KEYS)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: "×".join(map(str, grid)))
@pytest.mark.parametrize("case", CASES)
def test_equals_dense_attention_under_its_mask(case, grid, record_property):
    record_property("difference", check_dense(case, ORACLES[case], grid))


def test_a_window_of_several_patches():
    """Windows of 5 × 5 in 9 × 8 patches, cut off at every edge."""
    case = "sparse_local_global+local_window"
    check_dense(case, ORACLES[case], TokenGrid(batch=1, frames=2, height=9, width=8))


@pytest.mark.parametrize("case", CASES)
def test_every_parameter_gets_a_gradient(case):
    check_gradients(case)


@pytest.mark.parametrize("shape", [(1, 3, 1, 64, 64), (2, 3, 7, 32, 80), (1, 3, 4, 16, 16)])
@pytest.mark.parametrize("case", CASES)
def test_other_sizes_than_built_for_and_eval_is_deterministic(case, shape):
    check_sizes(case, shape)


@pytest.mark.parametrize("case", CASES)
def test_batch_rows_do_not_mix(case):
    check_rows(case)


@pytest.mark.parametrize("case", CASES)
def test_schemes_that_take_any_positions_do(case):
    check_positions(case)


def test_schemes_that_need_rows_and_columns_say_so():
    needing = {case for case in CASES if not block_class(case).any_positions}
    assert needing == {case for case in CASES if case.startswith(("axial", "sparse_local_global"))}


@pytest.mark.parametrize("case", CASES)
def test_activation_checkpointing_changes_nothing(case):
    check_checkpointing(case)


@pytest.mark.parametrize("case", CASES)
def test_starts_as_the_image_attention_in_its_groups(case):
    check_start(case, STARTS[case])


@pytest.mark.parametrize("case", SEES_NO_COPIES)
def test_number_of_equal_frames_does_not_matter(case):
    check_still(case)


@pytest.mark.parametrize("case", CLS_BESIDE_COPIES)
def test_number_of_equal_frames_matters_where_cls_is_one_key_among_copies(case):
    with pytest.raises(AssertionError, match="not close"):
        check_still(case)


@pytest.mark.parametrize("case", STARTS_AS_IMAGE)
@torch.no_grad()
def test_still_video_is_the_image_model(case):
    """Image weights through the loader: a still video gives the image model's features."""
    image_model = fill_(small_model("space_only"), seed=6).eval()
    model = fill_(small_model(case), seed=7).eval()
    load_pretrained(model, image_model.state_dict())
    image = clip_for("still", (2, 3, 1, 64, 64))
    torch.testing.assert_close(
        model.forward_features(image.expand(-1, -1, 5, -1, -1)),
        image_model.forward_features(image),
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_loader_starts_every_scheme_from_an_image_model(case):
    """What `image_init` and `zero_init` declare is what loading does, for every new weight."""
    image_model = fill_(small_model("space_only", num_classes=0), seed=6)
    model = fill_(small_model(case), seed=7)
    state = image_model.state_dict()
    if case in WITHOUT_CLS:
        del state["cls_token"]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    load_pretrained(model, state)
    for i, block in enumerate(model.blocks):
        for name, value in block.state_dict().items():
            module = name.split(".")[0]
            source = f"blocks.{i}.{name.replace(module, block.image_init.get(module, module), 1)}"
            if any(name.startswith(f"{zero}.") for zero in block.zero_init):
                assert not value.any(), name
            else:
                assert torch.equal(value, state[source]), name


@pytest.mark.parametrize("scheme", NEW_KEYS)
def test_state_dict_names_are_golden(scheme):
    model = small_model(scheme)
    expected = "pos_embed patch_embed.proj.weight patch_embed.proj.bias norm.weight norm.bias "
    expected += "head.weight head.bias"
    expected += "" if scheme in WITHOUT_CLS else " cls_token"
    expected += "" if scheme == "space_only" else " time_embed"
    for i in range(2):
        expected += "".join(f" blocks.{i}.{k}" for k in f"{IMAGE_KEYS} {NEW_KEYS[scheme]}".split())
    assert sorted(model.state_dict()) == sorted(expected.split())


B, T, h, w, N = 2, 4, 4, 4, 16
DROP_PATH_ROWS = {
    "space_only": [B * T, B * T],
    "joint_space_time": [B, B],
    "divided_space_time": [B * N, B * T, B],
    "divided_space_time+cls_in_time": [B * N, B * T, B],
    "space_then_time": [B * T, B * N, B],
    "parallel_space_time": [B * N, B * T, B],
    "sparse_local_global": [B * 4, B * 8, B],
    "sparse_local_global+local_window": [B, B * 8, B],
    "axial": [B * N, B * T * h, B * T * w, B],
    "factorised_self_attention": [B * T, B * N, B],
    "factorised_dot_product": [B, B],
}


@pytest.mark.parametrize("case", DROP_PATH_ROWS)
def test_drop_path_drops_rows_of_the_right_batch(case):
    """Every residual branch draws once per row of its folded batch."""
    model = small_model(case, drop_path_rate=0.9).train()
    rows = []
    model.blocks[1].drop_path.register_forward_hook(lambda m, args, out: rows.append(len(out)))
    model(clip_for("rows", (B, 3, T, 16 * h, 16 * w)))
    assert rows == DROP_PATH_ROWS[case]


@pytest.mark.parametrize(
    ("scheme", "grid", "lengths"),
    [
        ("sparse_local_global", TokenGrid(1, 8, 14, 14), [(4, 8 * 7 * 7), (8, 1 + 4 * 7 * 7)]),
        ("sparse_local_global", TokenGrid(1, 7, 13, 14), [(4, 8 * 7 * 7), (8, 1 + 4 * 7 * 7)]),
        ("axial", TokenGrid(1, 8, 14, 10), [(140, 8), (8 * 14, 10), (8 * 10, 1 + 14)]),
    ],
)
def test_sparse_schemes_never_attend_to_the_whole_clip(scheme, grid, lengths):
    """One batched attention a step, over sequences of these numbers and lengths."""
    block, seen = small_model(scheme).blocks[0], []
    for module in block.modules():
        if isinstance(module, Attention):
            module.register_forward_hook(lambda m, args, out: seen.append(out.shape[:2]))
    block.attend(random_tokens(scheme, grid), grid)
    assert seen == lengths


def test_cls_in_time_changes_patches_only_through_a_key():
    """With the key's value alone the time step moves; CLS itself stays for the space step."""
    grid = GRIDS[0]
    models = [
        fill_(small_model(case), seed=3).eval()
        for case in ("divided_space_time", "divided_space_time+cls_in_time")
    ]
    assert models[0].state_dict().keys() == models[1].state_dict().keys()
    x = random_tokens("divided_space_time", grid)
    with torch.no_grad():
        without, with_cls = (model.blocks[0].attend(x, grid) for model in models)
    assert (without - with_cls)[:, 1:].abs().max() > 1e-3


def test_factorised_dot_product_needs_two_heads():
    with pytest.raises(ValueError, match="a head for space and one for time"):
        block_class("factorised_dot_product")(12, 1)


def test_padding_is_never_looked_at():
    """What a key mask hides can be anything."""
    attention = Attention(12, 3).eval()
    x, mask = torch.randn(2, 5, 12), torch.tensor([[True] * 5, [True, False, True, False, False]])
    other = torch.where(mask[..., None], x, 100 * torch.randn_like(x))
    for fused in (True, False):
        set_fused_attention(attention, fused)
        with torch.no_grad():
            out = attention(x, mask)
            alone = attention(x[1:, [0, 2]])
            assert torch.equal(out[mask], attention(other, mask)[mask])
        torch.testing.assert_close(out[1:, [0, 2]], alone)


def test_fresh_weights():
    model = tiny_model("divided_space_time")
    assert not model.time_embed.any()
    for block in model.blocks:
        assert not block.temporal_fc.weight.any()
        assert not block.temporal_fc.bias.any()
        assert block.attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not block.attn.qkv.bias.any()
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.1)


def test_scratch_weights():
    model = tiny_model("divided_space_time", init="scratch")
    assert model.pos_embed.std().item() == pytest.approx(0.5, rel=0.1)
    assert model.time_embed.abs().max().item() == pytest.approx(1.0)
    assert model.time_embed[0].unique(dim=0).shape[0] == 4  # every frame differs
    assert not model.blocks[0].temporal_fc.weight.any()
    with pytest.raises(ValueError, match="image or scratch"):
        tiny_model("divided_space_time", init="random")


def test_input_errors_say_what_is_wrong():
    model = tiny_model("joint_space_time")
    with pytest.raises(ValueError, match=r"\(B, 3, T, H, W\)"):
        model(torch.zeros(3, 4, 64, 64))
    with pytest.raises(ValueError, match="60×64"):
        model(torch.zeros(1, 3, 4, 60, 64))


def test_attention_weights_can_be_read_on_the_plain_path():
    model = small_model("joint_space_time").eval()
    set_fused_attention(model, False)
    maps = []
    model.blocks[0].attn.attn_drop.register_forward_hook(lambda m, args, out: maps.append(out))
    model(clip_for("maps", (1, 3, 4, 64, 64)))
    assert maps[0].shape == (1, 3, 65, 65)
    torch.testing.assert_close(maps[0].sum(-1), torch.ones(1, 3, 65))
