"""Parameter counts, multiply-adds and memory of the published models, on the meta device."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from timesformer.config.defaults import get_cfg
from timesformer.models.attention.layers import Attention
from timesformer.models.build import make_model
from timesformer.models.profiling import (
    PeakStorages,
    activation_bytes,
    cost_table,
    count_macs,
    profile,
)

# Parameters with 174 and 400 classes (paper, Table 1: in millions).
PARAMETERS = {
    "space_only": (85_932_462, 86_106_256),
    "joint_space_time": (85_938_606, 86_112_400),
    "divided_space_time": (121_392_558, 121_566_352),
    "sparse_local_global": (121_392_558, 121_566_352),
    "axial": (156_846_510, 157_020_304),
}
# 10⁹ multiply-adds of a view of 8×224² (paper, Table 1).
PUBLISHED = {"space_only": 140.5, "joint_space_time": 179.6, "divided_space_time": 195.8}
# ViViT-B/16x2 on 32 frames, with 400 classes (arXiv 2103.15691, Table 2): 10⁶ parameters, 10⁹
# multiply-adds. It learns a position for each of the 16·14² tubelets; ours for 14² + 16.
VIVIT = {
    "joint_space_time": (88.9, 455.2),
    "factorised_self_attention": (117.3, 372.3),
    "factorised_dot_product": (88.9, 277.1),
}
# frames, crop -> 10⁹ multiply-adds of a view, 10¹² of three views (paper, Table 5: TFLOPs).
DIVIDED_VARIANTS = {(8, 224): (195.8, 0.59), (16, 448): (1702.7, 5.11), (96, 224): (2379.9, 7.14)}


def meta_model(scheme="divided_space_time", frames=8, crop=224, **options):
    cfg = get_cfg()
    cfg.TIMESFORMER.ATTENTION_TYPE = scheme
    cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE = frames, crop
    cfg.merge_from_list([word for pair in options.items() for word in pair])
    with torch.device("meta"):
        return make_model(cfg)


def small_model(scheme, act_checkpoint=False):
    options = {"EMBED_DIM": 24, "DEPTH": 3, "NUM_HEADS": 3, "ACT_CHECKPOINT": act_checkpoint}
    return meta_model(scheme, 4, 48, **{f"TIMESFORMER.{k}": v for k, v in options.items()})


@pytest.mark.parametrize("scheme", PARAMETERS)
def test_parameters_are_exact(scheme):
    for classes, expected in zip((174, 400), PARAMETERS[scheme], strict=True):
        model = meta_model(scheme, **{"MODEL.NUM_CLASSES": classes})
        assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize("scheme", ["divided_space_time", "sparse_local_global", "axial"])
def test_an_extra_step_costs_the_same_parameters_in_every_block(scheme):
    block = meta_model(scheme).model.blocks[3]
    image = meta_model("space_only").model.blocks[3]
    sizes = [sum(p.numel() for p in b.parameters()) for b in (block, image)]
    assert sizes[0] - sizes[1] == 2_954_496 * len(block.extra_steps)


def test_cls_in_time_has_no_parameters_of_its_own():
    model = meta_model(**{"TIMESFORMER.CLS_IN_TIME": True})
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS["divided_space_time"][1]


@pytest.mark.parametrize("scheme", VIVIT)
def test_vivit_models(scheme):
    model = meta_model(scheme, frames=32, **{"TIMESFORMER.TUBELET_SIZE": 2})
    learned_positions = 16 * 14 * 14 - 14 * 14 - 16
    parameters = sum(p.numel() for p in model.parameters()) + learned_positions * 768
    macs = count_macs(model, (3, 32, 224, 224))
    assert parameters / 1e6 == pytest.approx(VIVIT[scheme][0], abs=0.1)
    assert macs / 1e9 == pytest.approx(VIVIT[scheme][1], rel=0.01)


@pytest.mark.parametrize("scheme", PUBLISHED)
def test_multiply_adds_of_the_schemes(scheme):
    macs = count_macs(meta_model(scheme), (3, 8, 224, 224))
    assert macs / 1e9 == pytest.approx(PUBLISHED[scheme], abs=0.06)


@pytest.mark.parametrize("variant", DIVIDED_VARIANTS)
def test_multiply_adds_of_the_large_variants(variant):
    frames, crop = variant
    macs = count_macs(meta_model(frames=frames, crop=crop), (3, frames, crop, crop))
    per_view, paper = DIVIDED_VARIANTS[variant]
    assert macs / 1e9 == pytest.approx(per_view, abs=0.06)
    assert 3 * macs / 1e12 == pytest.approx(paper, abs=0.006)


def test_multiply_adds_by_hand():
    """Divided, width 24, depth 3, 4 frames of 3×3 patches: every product written out."""
    D, N, T = 24, 9, 4
    time = N * (T * 4 * D * D + 2 * T * T * D) + N * T * D * D  # qkv + proj, q·k + a·v; fc
    space = T * ((N + 1) * 4 * D * D + 2 * (N + 1) ** 2 * D)
    mlp = (1 + N * T) * 8 * D * D
    patches, head = N * T * D * 3 * 16 * 16, D * 400
    expected = patches + 3 * (time + space + mlp) + head
    assert count_macs(small_model("divided_space_time"), (3, 4, 48, 48)) == expected


def attention_macs(scheme, T, h, w, D=768):
    """q·k and a·v of a block: two products of D for every pair of tokens that see each other."""
    pairs = {
        "joint_space_time": (1 + T * h * w) ** 2,
        "divided_space_time": h * w * T**2 + T * (1 + h * w) ** 2,
        "sparse_local_global": 4 * (T * h * w // 4) ** 2 + 8 * (1 + T * h * w // 8) ** 2,
        "axial": h * w * T**2 + T * h * w**2 + T * w * (1 + h) ** 2,
    }
    return 2 * D * pairs[scheme]


@pytest.mark.parametrize(
    "shape",
    [
        (8, 224),
        pytest.param((16, 448), marks=pytest.mark.slow),
        pytest.param((96, 224), marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("scheme", ["sparse_local_global", "axial"])
def test_sparse_attention_costs_what_it_should(scheme, shape):
    """All of ViT-B's products by hand, and attention itself far below joint attention."""
    T, side = shape
    h = w = side // 16
    D, tokens = 768, T * h * w
    copies = {"sparse_local_global": 8, "axial": T * w}[scheme]  # of CLS, in the last step
    steps = {"sparse_local_global": 1, "axial": 2}[scheme] * tokens * 5 * D**2  # qkv, proj, fc
    last = (tokens + copies) * 4 * D**2
    mlp = (1 + tokens) * 8 * D**2
    own = attention_macs(scheme, T, h, w)
    patches, head = tokens * D * 3 * 16 * 16, D * 400
    macs = count_macs(meta_model(scheme, T, side), (3, T, side, side))
    assert macs == patches + 12 * (steps + last + mlp + own) + head
    joint = attention_macs("joint_space_time", T, h, w)
    assert own < {"sparse_local_global": 0.4, "axial": 0.05}[scheme] * joint


@pytest.mark.parametrize("scheme", ["sparse_local_global", "axial"])
def test_whole_network_is_cheaper_than_joint_where_clips_are_long(scheme):
    """At 8×224 joint is still cheaper: its attention costs less than further projections."""
    one_block = {"TIMESFORMER.DEPTH": 1}
    for T, side, cheaper in [(8, 224, False), (16, 448, True), (96, 224, True)]:
        sparse, joint = (
            count_macs(meta_model(name, T, side, **one_block), (3, T, side, side))
            for name in (scheme, "joint_space_time")
        )
        assert (sparse < joint) is cheaper


def test_profile_leaves_the_model_alone():
    model = small_model("joint_space_time").train()
    cost = profile(model, (3, 4, 48, 48))
    assert cost.weight_bytes == 4 * cost.params
    assert all(p.device.type == "meta" for p in model.parameters())
    assert isinstance(model.model.patch_embed.proj, nn.Conv2d)
    assert model.training
    assert all(m.fused for m in model.modules() if isinstance(m, Attention))


def saved_for_backward(model, clips):
    """Bytes of the distinct storages that autograd saves in a real forward pass."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = model(clips)
    size = sum(storage.nbytes() for ptr, storage in saved.items() if ptr not in weights)
    return size + logits.nbytes


@pytest.mark.parametrize("scheme", [*PARAMETERS, "factorised_dot_product"])
def test_activations_are_what_autograd_saves(scheme):
    model = small_model(scheme).to_empty(device="cpu").train()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02)
    two, three = (saved_for_backward(model, torch.randn(b, 3, 4, 48, 48)) for b in (2, 3))
    assert activation_bytes(small_model(scheme), (3, 4, 48, 48)) == three - two


def test_activation_checkpointing_keeps_block_inputs_only():
    shape = (3, 4, 48, 48)
    full = activation_bytes(small_model("joint_space_time"), shape)
    kept = activation_bytes(small_model("joint_space_time", act_checkpoint=True), shape)
    clip, tokens = (
        4 * 3 * 4 * 48 * 48,
        4 * (1 + 9 * 4) * 24,
    )  # bytes; the patch layer keeps the clip
    assert 3 * tokens <= kept - clip < 6 * tokens < (full - clip) / 2


def test_the_table_of_a_model_and_its_parts():
    """Short, adding up to the whole, for a ViT and for a convolutional network."""
    lines = cost_table("divided", meta_model(), (3, 8, 224, 224)).splitlines()
    rows = {line.split("  ")[0]: line.split()[-2:] for line in lines}
    assert list(rows) == [
        "model", "patch_embed", "blocks", "norm", "head", "tokens and positions", "divided",
    ]  # fmt: skip
    assert rows["divided"] == ["121,566,352", "196"]
    assert rows["head"] == ["307,600", "0.000307"]
    counts = [int(params.replace(",", "")) for params, _ in [*rows.values()][1:]]
    assert sum(counts[:-1]) == counts[-1]
    cfg = get_cfg()
    cfg.MODEL.MODEL_NAME, cfg.MODEL.NUM_CLASSES = "s3d", 3
    with torch.device("meta"):
        lines = cost_table("s3d", make_model(cfg), (3, 8, 32, 32)).splitlines()
    assert [line.split()[0] for line in lines] == ["model", "features", "classifier", "s3d"]


def test_memory_is_looked_at_where_some_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the time to work it out grew with the square of a model's depth."""
    asked, expired = list[int](), StorageWeakRef.expired
    monkeypatch.setattr(StorageWeakRef, "expired", lambda s: asked.append(1) or expired(s))
    with PeakStorages() as live:
        x = torch.zeros(256)
        y = x + 1
        for _ in range(20):
            y.view(2, -1).t().add_(1)
        del y
        z = x + 2
    assert len(asked) == 1 + 2 + 3
    assert live.peak == 2 * x.nbytes == x.nbytes + z.nbytes
