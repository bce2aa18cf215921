"""The paper's models under the published names: `TimeSformer`, `Block`, and the registry's entries.

Shape letters: B batch, T frames, H×W pixels, h×w patches of a frame, N = h·w, D embedding width,
K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode
from torch import Tensor, nn

from timesformer.clips.tubes import PatchGrid, Tubes
from timesformer.models.architecture import Architecture, knobs_of
from timesformer.models.attention import ATTENTION_REGISTRY, SpaceTimeBlock, TokenGrid
from timesformer.models.attention.layers import Attention, Mlp
from timesformer.models.base import VideoModel
from timesformer.models.explain.attention_maps import attention_maps
from timesformer.models.network.patch_embed import PatchEmbed
from timesformer.models.network.vision_transformer import VisionTransformer, layer_patterns
from timesformer.models.registry import MODEL_REGISTRY
from timesformer.models.weights.bundle import make_from
from timesformer.models.weights.load import load_pretrained
from timesformer.models.weights.save import save_pretrained
from timesformer.utils.text import did_you_mean

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


class TimeSformer(VideoModel):
    """The paper's model: a `VisionTransformer` of ViT sizes, held as `.model`.

    Args:
        pretrained_model: weights to load: a file, `timm/NAME`, or '' for none
            (see `timesformer.models.pretrained.load_pretrained`).
        img_size: like all others, a field of `Architecture`.
        **knobs: the rest of its fields; without, those of the published ViT-B.

    Attributes:
        architecture: all of these, as checkpoints carry them; see `VideoModel` for the others.

    Raises:
        TypeError: there is no such knob.
        ValueError: a value that can't work.
        WeightsError: if `pretrained_model` can't be read or doesn't belong to this model.
    """

    architecture: Architecture
    knobs = knobs_of(VisionTransformer)

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        num_classes: int = 400,
        num_frames: int = 8,
        attention_type: str = "divided_space_time",
        pretrained_model: str = "",
        **knobs: Any,
    ) -> None:
        super().__init__()
        if unknown := sorted(knobs.keys() - self.knobs):
            hint = did_you_mean(unknown[0], [*self.knobs, "pretrained_model"])
            raise TypeError(f"TimeSformer: no argument {unknown[0]!r}{hint}")
        self.architecture = Architecture(
            img_size=img_size,
            patch_size=patch_size,
            num_classes=num_classes,
            num_frames=num_frames,
            attention_type=attention_type,
            **knobs,
        )
        if self.architecture.model not in TIMESFORMERS:
            raise ValueError(
                f"{self.architecture.model} is no TimeSformer: timesformer.create_model and "
                "timesformer.models.create.from_pretrained make other models"
            )
        self.model = VisionTransformer(
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            **self.architecture.arguments_for(VisionTransformer),
        )
        if pretrained_model:
            load_pretrained(self.model, pretrained_model)

    @classmethod
    def of(cls, architecture: Architecture) -> TimeSformer:
        """Make the model of an architecture, with fresh weights."""
        return cls(**{name: getattr(architecture, name) for name in cls.knobs})

    @classmethod
    def from_pretrained(cls, source: str | Path, **overrides: Any) -> TimeSformer:
        """Make the model that weights are of, and load them.

        See `timesformer.models.create.from_pretrained`, which makes other models too.

        Raises:
            WeightsError: they are another model's.
        """
        return make_from(source, cls.of, overrides)

    def save_pretrained(self, folder: str | Path, **more: Any) -> None:
        """Write weights and config; see `timesformer.models.weights.save.save_pretrained`."""
        save_pretrained(self, folder, **more)

    def forward(self, x: Tensor, tubes: Tubes | None = None) -> Tensor:
        """Clip (B, 3, T, H, W) -> logits (B, K); with `tubes`, of the patches that these keep."""
        return self.model(x, tubes)

    def patch_grid(self, height: int, width: int) -> PatchGrid:
        """Return what `Tubes` of frames of so many pixels are chosen from."""
        return self.model.patch_grid(height, width)

    def attention_maps(self, x: Tensor, layers: Collection[str] | None = None) -> dict[str, Tensor]:
        """Return the attention weights of every step, or of some layers: see `models.explain`.

        Attention is fused again afterwards, and everywhere else.
        """
        return attention_maps(self.model, x, layers)

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
        """Return the last layer, from D features to K logits."""
        return self.model.get_classifier()

    def _reset_head(self, num_classes: int) -> None:
        self.model.reset_classifier(num_classes)

    def no_weight_decay(self) -> set[str]:
        """Name the parameters that other recipes leave out of weight decay."""
        return {f"model.{name}" for name in self.model.no_weight_decay()}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block's activations in the backward pass to save memory, or don't."""
        self.model.set_grad_checkpointing(enable)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Say which parameters belong to which layer; see `VisionTransformer`."""
        return layer_patterns(r"model\.", coarse)


class _BlockType(type(nn.Module)):  # type: ignore[misc]
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, SpaceTimeBlock)


class Block(metaclass=_BlockType):
    """The published block: that of a scheme, called as `block(x, B, T, W)`.

    Every block of a model is an instance of it. A block of another kind is a subclass of
    `SpaceTimeBlock` (docs/adding_an_attention_scheme.md).

    Args:
        attention_type: name of a registered scheme.
        dim: embedding width D; like all others, see `SpaceTimeBlock`.

    Raises:
        KeyError: there is no such scheme.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        raise TypeError(
            "Block makes blocks of a scheme's own class, so a subclass would never be made: "
            "subclass timesformer.models.attention.SpaceTimeBlock, or the scheme's block"
        )

    def __new__(  # type: ignore[misc]
        cls,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        qk_scale: float | None = None,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        act_layer: type[nn.Module] = nn.GELU,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        attention_type: str = "divided_space_time",
        **options: Any,
    ) -> SpaceTimeBlock:
        """Return a block of the scheme's own class, with the published call."""
        sizes = (dim, num_heads, mlp_ratio, qkv_bias, qk_scale, drop, attn_drop, drop_path)
        return _published(attention_type)(*sizes, act_layer, norm_layer, **options)


class _PublishedCall:
    attention_type: str
    one_sequence_per_clip: bool
    cls_token: bool

    def forward(self, x: Tensor, B: int, T: int, W: int) -> Tensor:
        """Tokens of B clips of T frames that are W patches wide -> the same.

        Args:
            x: (B, 1 + N·T, D), time fastest; (B·T, 1 + N, D) for space_only.
            B: clips.
            T: frames.
            W: patches in a row.
        """
        patches = x.shape[1] - int(self.cls_token)
        per_frame = patches // T if self.one_sequence_per_clip else patches
        return super().forward(x, TokenGrid(B, T, per_frame // W, W))  # type: ignore[misc]

    def __reduce__(self) -> tuple[Any, ...]:
        # The class has no name that pickle could look up.
        return _unpickled, (self.attention_type,), self.__dict__


@cache
def _published(attention_type: str) -> type[SpaceTimeBlock]:
    scheme = ATTENTION_REGISTRY.get(attention_type)
    return type("Block", (_PublishedCall, scheme), {"attention_type": attention_type})


def _unpickled(attention_type: str) -> SpaceTimeBlock:
    block_class = _published(attention_type)
    return block_class.__new__(block_class)


@MODEL_REGISTRY.register()
def vit_base_patch16_224(cfg: CfgNode) -> TimeSformer:
    """ViT-B, or any other size that TIMESFORMER.{EMBED_DIM, DEPTH, NUM_HEADS} gives."""
    return TimeSformer.of(Architecture.from_cfg(cfg, "vit_base_patch16_224"))


@MODEL_REGISTRY.register()
def vit_tiny_patch16_224(cfg: CfgNode) -> TimeSformer:
    """ViT-Ti: width 192, 12 blocks, 3 heads."""
    return TimeSformer.of(Architecture.from_cfg(cfg, "vit_tiny_patch16_224"))


@MODEL_REGISTRY.register()
def vit_small_patch16_224(cfg: CfgNode) -> TimeSformer:
    """ViT-S: width 384, 12 blocks, 6 heads."""
    return TimeSformer.of(Architecture.from_cfg(cfg, "vit_small_patch16_224"))


@MODEL_REGISTRY.register()
def vit_large_patch16_224(cfg: CfgNode) -> TimeSformer:
    """ViT-L: width 1024, 24 blocks, 16 heads."""
    return TimeSformer.of(Architecture.from_cfg(cfg, "vit_large_patch16_224"))


# The published name, which configs of its time give too.
MODEL_REGISTRY._do_register("TimeSformer", vit_base_patch16_224)

TIMESFORMERS = {name for name, entry in MODEL_REGISTRY if entry.__module__ == __name__}
"""Names under which the registry has the paper's models."""
