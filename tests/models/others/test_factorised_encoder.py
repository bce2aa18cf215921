"""VTN and ViViT's factorised encoder, against timm's ViT followed by torch's own encoder."""

from __future__ import annotations

import pytest
import timm
import torch
from einops import rearrange
from torch import Tensor, nn

from timesformer.config.defaults import get_cfg
from timesformer.engine.optimizer import construct_optimizer
from timesformer.models.build import make_model
from timesformer.models.create import from_pretrained
from timesformer.models.others.factorised_encoder import FactorisedEncoder
from timesformer.models.weights.load import load_pretrained

NAMES = ["vtn", "vivit_factorised_encoder"]
D, HEADS = 24, 3


def small_cfg(name: str):
    cfg = get_cfg()
    cfg.MODEL.MODEL_NAME, cfg.MODEL.NUM_CLASSES = name, 6
    cfg.DATA.NUM_FRAMES = 4
    cfg.DATA.TRAIN_CROP_SIZE = cfg.DATA.TEST_CROP_SIZE = 32
    model = cfg.TIMESFORMER
    model.EMBED_DIM, model.DEPTH, model.NUM_HEADS, model.PATCH_SIZE = D, 2, HEADS, 8
    model.DROP_PATH_RATE = 0.0
    return cfg


def scramble(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def encoder_layer(state: dict[str, Tensor], hidden: int) -> nn.TransformerEncoderLayer:
    """Torch's own pre-norm layer with the weights of one of our blocks."""
    layer = nn.TransformerEncoderLayer(
        D, HEADS, hidden, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True
    )
    names = {
        "self_attn.in_proj_": "attn.qkv.",
        "self_attn.out_proj.": "attn.proj.",
        "linear1.": "mlp.fc1.",
        "linear2.": "mlp.fc2.",
        "norm1.": "norm1.",
        "norm2.": "norm2.",
    }
    layer.load_state_dict(
        {
            theirs + part: state[ours + part]
            for theirs, ours in names.items()
            for part in ("weight", "bias")
        }
    )
    return layer.train(False)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mlp_ratio", [4.0, 2.0])
@torch.inference_mode()
def test_equals_timms_vit_and_torchs_encoder(name, mlp_ratio):
    cfg = small_cfg(name)
    cfg.TIMESFORMER.MLP_RATIO = mlp_ratio
    model = scramble(make_model(cfg))
    prefix, vit = model.image_part()
    assert set(model.state_dict()) >= {prefix + key for key in vit.state_dict()}
    image = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=D, depth=2, num_heads=HEADS, mlp_ratio=mlp_ratio,
        num_classes=0,
    ).eval()  # fmt: skip
    image.load_state_dict(vit.state_dict())

    clip = torch.randn(2, 3, 4, 32, 32)
    frames = image(rearrange(clip, "b c t h w -> (b t) c h w")).unflatten(0, (2, 4))
    x = torch.cat([model.temporal_cls.expand(2, -1, -1), frames], dim=1) + model.temporal_embed
    assert len(model.temporal_blocks) == {"vtn": 3}.get(name, 4)
    for block in model.temporal_blocks:
        x = encoder_layer(block.state_dict(), int(D * mlp_ratio))(x)
    features = nn.functional.layer_norm(x[:, 0], (D,), model.norm.weight, model.norm.bias, eps=1e-6)
    torch.testing.assert_close(model.forward_features(clip), features, atol=1e-4, rtol=1e-4)
    if name == "vtn":
        hidden = model.pre_head[0]
        features = nn.functional.gelu(features @ hidden.weight.T + hidden.bias)
    logits = features @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(clip), logits, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_tubelets_are_3d_convolutions():
    cfg = small_cfg("vivit_factorised_encoder")
    cfg.TIMESFORMER.TUBELET_SIZE = 2
    model = scramble(make_model(cfg))
    assert model.spatial.patch_embed.proj.weight.shape == (D, 3, 2, 8, 8)
    assert model.temporal_embed.shape == (1, 3, D)
    clip = torch.randn(2, 3, 4, 32, 32)
    by_hand = torch.stack(
        [model.spatial.forward_features(clip[:, :, i : i + 2]) for i in (0, 2)], dim=1
    )
    seen = []
    model.temporal_blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(clip)
    expected = by_hand + model.temporal_embed[:, 1:]
    torch.testing.assert_close(seen[0][:, 1:], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("depth", [0, 1, 8])
@torch.inference_mode()
def test_number_of_blocks_over_time(name, depth, tmp_path):
    cfg = small_cfg(name)
    cfg.TIMESFORMER.TEMPORAL_DEPTH = depth
    model = scramble(make_model(cfg))
    assert len(model.temporal_blocks) == model.architecture.temporal_depth == depth
    assert any(key.startswith(("temporal_", "norm.")) for key in model.state_dict()) is (depth > 0)
    clip = torch.randn(2, 3, 4, 32, 32)
    frames = model.spatial.forward_features(rearrange(clip, "b c t h w -> (b t) c 1 h w"))
    mean = frames.unflatten(0, (2, 4)).mean(dim=1)
    assert torch.allclose(model.forward_features(clip), mean, atol=1e-5) is (depth == 0)
    content = {"model_state": model.state_dict(), "architecture": model.architecture.to_json()}
    torch.save(content, tmp_path / "model.pyth")
    assert torch.equal(from_pretrained(tmp_path / "model.pyth").eval()(clip), model(clip))


def test_layers_without_blocks_over_time():
    cfg = small_cfg("vivit_factorised_encoder")
    cfg.SOLVER.LAYER_DECAY, cfg.TIMESFORMER.TEMPORAL_DEPTH = 0.5, 0
    model = make_model(cfg)
    groups = construct_optimizer(model, cfg).param_groups
    rate = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    last = [model.spatial.patch_embed.proj, *(b.mlp.fc1 for b in model.spatial.blocks), model.head]
    assert [rate[id(layer.weight)] for layer in last] == [0.125, 0.25, 0.5, 1.0]


VIT_B = 85_798_656  # without a head
BLOCK = 12 * 768**2 + 13 * 768
HEAD, NORM = 400 * 769, 2 * 768


@pytest.mark.parametrize(
    ("name", "frames", "tubelet", "depth", "expected"),
    [
        ("vtn", 8, 1, -1, VIT_B + 3 * BLOCK + (1 + 9) * 768 + NORM + 768 * 769 + HEAD),
        ("vivit_factorised_encoder", 8, 1, -1, VIT_B + 4 * BLOCK + (1 + 9) * 768 + NORM + HEAD),
        # arXiv 2103.15691, Table 2: 115.1M parameters, 86.7M of the average pooling baseline
        ("vivit_factorised_encoder", 32, 2, -1, 115_060_000),
        ("vivit_factorised_encoder", 32, 2, 0, 86_700_000),
    ],
)
def test_parameter_counts(name, frames, tubelet, depth, expected):
    cfg = get_cfg()
    cfg.MODEL.MODEL_NAME = name
    cfg.DATA.NUM_FRAMES, cfg.TIMESFORMER.TUBELET_SIZE = frames, tubelet
    cfg.TIMESFORMER.TEMPORAL_DEPTH = depth
    with torch.device("meta"):
        count = sum(p.numel() for p in make_model(cfg).parameters())
    assert count == expected if tubelet == 1 else round(count / 1e6, 1) == round(expected / 1e6, 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("init", ["image", "scratch"])
def test_every_parameter_gets_a_gradient(name, init):
    cfg = small_cfg(name)
    cfg.TIMESFORMER.INIT, cfg.TIMESFORMER.DROP_PATH_RATE = init, 0.1
    model = make_model(cfg).train()
    logits = model(torch.randn(4, 3, 4, 32, 32))
    assert logits.shape == (4, 6)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 5])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


@pytest.mark.parametrize("name", NAMES)
def test_recomputed_activations_give_the_same_gradients(name):
    cfg = small_cfg(name)
    model = make_model(cfg).train()
    clip = torch.randn(2, 3, 4, 32, 32)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        assert model.spatial.act_checkpoint is enable
        model.zero_grad()
        model(clip).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_evaluation_is_deterministic_and_takes_other_sizes(name):
    cfg = small_cfg(name)
    cfg.TIMESFORMER.DROP_PATH_RATE = 0.5
    model = make_model(cfg).eval()
    clip = torch.randn(2, 3, 4, 32, 32)
    assert torch.equal(model(clip), model(clip))
    assert model(torch.randn(1, 3, 7, 40, 24)).shape == (1, 6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("positions", "knows"), [("space_time", True), ("space", False)])
@torch.inference_mode()
def test_order_of_frames_is_known_by_positions_alone(name, positions, knows):
    cfg = small_cfg(name)
    cfg.TIMESFORMER.POS_EMBED = positions
    model = scramble(make_model(cfg))
    clip = torch.randn(1, 3, 4, 32, 32)
    same = torch.allclose(model(clip), model(clip.flip(2)), atol=1e-4)
    assert same is not knows


@pytest.mark.parametrize("name", NAMES)
def test_classifier(name):
    model = make_model(small_cfg(name))
    assert model.classifier_name == "head"
    assert model.get_classifier() is model.head
    clip = torch.randn(1, 3, 4, 32, 32)
    model.reset_classifier(0)
    assert not any(key.startswith("head") for key in model.state_dict())
    features = model.eval()(clip)
    assert torch.equal(features, model.forward_head(model.forward_features(clip), pre_logits=True))
    model.reset_classifier(11)
    assert model(clip).shape == (1, 11)
    assert (features.shape, model.num_classes) == ((1, D), 11)


@pytest.mark.parametrize("name", NAMES)
def test_positions_of_another_clip_size(name):
    cfg = small_cfg(name)
    other = make_model(cfg).state_dict()
    other["temporal_embed"] = torch.arange(5.0)[None, :, None].expand(1, 5, D)
    cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE = 8, 48
    model = make_model(cfg)
    fitted = model.fit_positions(other)
    assert fitted["temporal_embed"][0, :, 0].tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4]
    model.load_state_dict(other | fitted)
    assert model.fit_positions(model.state_dict()) == {}


@pytest.mark.parametrize("name", NAMES)
def test_image_weights_fill_the_vit(name):
    model = make_model(small_cfg(name))
    image = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=D, depth=2, num_heads=HEADS, num_classes=7
    )
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = load_pretrained(model, image.state_dict())
    prefix, vit = model.image_part()
    assert set(report.loaded) == {prefix + key for key in vit.state_dict()}
    for key, value in model.state_dict().items():
        inner = key.removeprefix(prefix)
        expected = image.state_dict()[inner] if key in report.loaded else before[key]
        assert torch.equal(value, expected), key


@pytest.mark.parametrize("name", NAMES)
def test_layer_decay_goes_from_pixels_to_head(name):
    cfg = small_cfg(name)
    cfg.SOLVER.LAYER_DECAY = 0.5
    model = make_model(cfg)
    names = {id(p): key for key, p in model.named_parameters()}
    rate = {
        names[id(p)]: group["lr_scale"]
        for group in construct_optimizer(model, cfg).param_groups
        for p in group["params"]
    }
    last = len(model.temporal_blocks) - 1
    path = [
        "spatial.patch_embed.proj.weight",
        "spatial.blocks.0.norm1.weight",
        "spatial.blocks.1.norm1.weight",
        *(f"temporal_blocks.{i}.norm1.weight" for i in range(last + 1)),
        "head.weight",
    ]
    assert [rate[key] for key in path] == [0.5**i for i in reversed(range(len(path)))]
    for key, mate in {
        "spatial.pos_embed": path[0],
        "spatial.norm.weight": path[2],
        "temporal_cls": path[3],
        "temporal_embed": path[3],
        "norm.weight": path[-2],
    }.items():
        assert rate[key] == rate[mate], key


def test_frames_divide_into_tubelets():
    with pytest.raises(ValueError, match="5 frames"):
        FactorisedEncoder(num_frames=5, tubelet_size=2, embed_dim=12, num_heads=3, depth=1)
