"""The paper's models: a `VisionTransformer` of ViT sizes, and its entries in the registry.

Shape letters: B batch, T frames, H×W pixels, h×w patches of a frame, D embedding width, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode
from torch import Tensor, nn

from timesformer.models import create as hub
from timesformer.models.attention import SpaceTimeBlock
from timesformer.models.attention.layers import Attention, Mlp
from timesformer.models.network.patch_embed import PatchEmbed
from timesformer.models.network.vision_transformer import VisionTransformer, layer_patterns
from timesformer.models.registry import MODEL_REGISTRY
from timesformer.models.weights.load import load_pretrained
from timesformer.utils.errors import ConfigError

__all__ = [
    "Attention",
    "Block",
    "Mlp",
    "PatchEmbed",
    "TimeSformer",
    "VisionTransformer",
    "vit_base_patch16_224",
    "vit_large_patch16_224",
    "vit_small_patch16_224",
    "vit_tiny_patch16_224",
]

Block = SpaceTimeBlock

VIT_BASE_SIZES = (768, 12, 12)  # width, depth, heads


class TimeSformer(nn.Module):
    """The paper's model: a `VisionTransformer` of ViT sizes, held as `.model`.

    Args:
        img_size: frame side in pixels, or (H, W).
        patch_size: patch side P in pixels.
        num_classes: classes K.
        num_frames: frames T of a clip.
        attention_type: name of a registered scheme.
        pretrained_model: weights to load: a file, `timm/NAME`, or '' for none
            (see `timesformer.models.weights.load.load_pretrained`).
        embed_dim: embedding width D; like all below, ViT-B when not given.
        depth: number of blocks.
        num_heads: heads of every attention.
        mlp_ratio: hidden width of the MLPs over D.
        drop_path_rate: stochastic depth of the last block.
        init: see `VisionTransformer`, as for all below.
        act_checkpoint: recompute activations.
        pos_embed_type: space_time, space or none.
        tubelet_size: frames that a token covers.
        cls_in_time: CLS is a key in temporal attention (paper, Eq. 13).
        time_embed_amplitude: of the sines that time_embed starts as.

    Attributes:
        preprocessing: what the weights expect of their input (mean, std, channel_order, …), where
            that is known, else {}.
        class_names: in label order, or ().

    Raises:
        WeightsError: if `pretrained_model` can't be read or doesn't belong to this model.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        num_classes: int = 400,
        num_frames: int = 8,
        attention_type: str = "divided_space_time",
        pretrained_model: str = "",
        *,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.1,
        init: str = "image",
        act_checkpoint: bool = False,
        pos_embed_type: str = "space_time",
        tubelet_size: int = 1,
        cls_in_time: bool = False,
        time_embed_amplitude: float | None = None,
    ) -> None:
        super().__init__()
        self.preprocessing: dict[str, Any] = {}
        self.class_names: tuple[str, ...] = ()
        self.model = VisionTransformer(
            img_size=img_size,
            patch_size=patch_size,
            num_classes=num_classes,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=True,
            drop_path_rate=drop_path_rate,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            num_frames=num_frames,
            attention_type=attention_type,
            init=init,
            act_checkpoint=act_checkpoint,
            pos_embed_type=pos_embed_type,
            tubelet_size=tubelet_size,
            cls_in_time=cls_in_time,
            time_embed_amplitude=time_embed_amplitude,
        )
        if pretrained_model:
            load_pretrained(self.model, pretrained_model)

    @classmethod
    def from_pretrained(cls, source: str | Path, **overrides: Any) -> TimeSformer:
        """The model of a folder, file or hub id; see `create.from_pretrained`."""
        return hub.from_pretrained(source, **overrides)

    def save_pretrained(self, folder: str | Path, **more: Any) -> None:
        """Writes weights and config; see `timesformer.models.create.save_pretrained`."""
        hub.save_pretrained(self, folder, **more)

    def forward(self, x: Tensor) -> Tensor:
        """Clip (B, 3, T, H, W) -> logits (B, K)."""
        return self.model(x)

    def forward_features(self, x: Tensor) -> Tensor:
        """Clip (B, 3, T, H, W) -> normalised features (B, D)."""
        return self.model.forward_features(x)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Features (B, D) -> logits (B, K), or the features themselves."""
        return self.model.forward_head(features, pre_logits)

    def get_intermediate_layers(
        self, x: Tensor, n: int | Sequence[int] = 1, norm: bool = True, return_cls: bool = False
    ) -> list[Any]:
        """Tokens (B, T, h, w, D) after some blocks; see `VisionTransformer`."""
        return self.model.get_intermediate_layers(x, n, norm, return_cls)

    def get_classifier(self) -> nn.Module:
        """The last layer, from D features to K logits."""
        return self.model.get_classifier()

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the head by a fresh one; 0 classes leave features as output."""
        self.model.reset_classifier(num_classes)

    def no_weight_decay(self) -> set[str]:
        """Parameters that other recipes leave out of weight decay."""
        return {f"model.{name}" for name in self.model.no_weight_decay()}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block's activations in the backward pass to save memory, or don't."""
        self.model.set_grad_checkpointing(enable)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameters belong to which layer; see `VisionTransformer`."""
        return layer_patterns(r"model\.", coarse)


def _from_config(cfg: CfgNode, embed_dim: int, depth: int, num_heads: int) -> TimeSformer:
    options = cfg.TIMESFORMER
    amplitude = options.TIME_EMBED_AMPLITUDE
    return TimeSformer(
        img_size=cfg.DATA.TRAIN_CROP_SIZE,
        patch_size=options.PATCH_SIZE,
        num_classes=cfg.MODEL.NUM_CLASSES,
        num_frames=cfg.DATA.NUM_FRAMES,
        attention_type=options.ATTENTION_TYPE,
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        mlp_ratio=options.MLP_RATIO,
        drop_path_rate=options.DROP_PATH_RATE,
        init=options.INIT,
        act_checkpoint=options.ACT_CHECKPOINT,
        pos_embed_type=options.POS_EMBED,
        tubelet_size=options.TUBELET_SIZE,
        cls_in_time=options.CLS_IN_TIME,
        time_embed_amplitude=None if amplitude < 0 else amplitude,
    )


@MODEL_REGISTRY.register()
def vit_base_patch16_224(cfg: CfgNode) -> TimeSformer:
    """ViT-B, or any other size that TIMESFORMER.{EMBED_DIM, DEPTH, NUM_HEADS} gives."""
    options = cfg.TIMESFORMER
    return _from_config(cfg, options.EMBED_DIM, options.DEPTH, options.NUM_HEADS)


def _named_size(cfg: CfgNode, *sizes: int) -> TimeSformer:
    options = cfg.TIMESFORMER
    asked = (options.EMBED_DIM, options.DEPTH, options.NUM_HEADS)
    if asked not in (sizes, VIT_BASE_SIZES):
        raise ConfigError(
            f"MODEL.MODEL_NAME {cfg.MODEL.MODEL_NAME} is of width, depth, heads {sizes}, but "
            f"TIMESFORMER.EMBED_DIM, DEPTH, NUM_HEADS say {asked}: leave these out, or set "
            "MODEL.MODEL_NAME vit_base_patch16_224, which takes them"
        )
    return _from_config(cfg, *sizes)


@MODEL_REGISTRY.register()
def vit_tiny_patch16_224(cfg: CfgNode) -> TimeSformer:
    """ViT-Ti: width 192, 12 blocks, 3 heads."""
    return _named_size(cfg, 192, 12, 3)


@MODEL_REGISTRY.register()
def vit_small_patch16_224(cfg: CfgNode) -> TimeSformer:
    """ViT-S: width 384, 12 blocks, 6 heads."""
    return _named_size(cfg, 384, 12, 6)


@MODEL_REGISTRY.register()
def vit_large_patch16_224(cfg: CfgNode) -> TimeSformer:
    """ViT-L: width 1024, 24 blocks, 16 heads."""
    return _named_size(cfg, 1024, 24, 16)
