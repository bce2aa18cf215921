"""What takes part in a benchmark of the model: ours, that of `transformers`, the skeleton.

Both models have the same random weights. A training step is that of a run, `train_step`, for both:
uint8 clips go to the device and are normalised there, then forward, backward, clipping, optimizer.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from model_parts.rates import PRECISIONS
from model_parts.skeleton import Product, Skeleton, by_onednn, of_training
from model_parts.turns import Contestant
from timesformer.config.layout import batch_layout
from timesformer.config.node import CfgNode
from timesformer.datasets.lists.records import Record
from timesformer.engine.assemble import make_state
from timesformer.engine.step import train_step
from timesformer.models.attention.linear import AVAILABLE
from timesformer.models.build import build_model
from timesformer.models.compiling import compile_blocks
from timesformer.models.weights.formats import hugging_face
from timesformer.utils.parser import load_recipe
from timesformer.utils.precision import autocast

RECIPE = "Kinetics/TimeSformer_divST_8x32_224"
SIZES: Mapping[str, Mapping[str, object]] = {
    "base": {},  # of the recipe: ViT-B/16, 400 classes
    "tiny": {"TIMESFORMER.EMBED_DIM": 48, "TIMESFORMER.DEPTH": 2, "TIMESFORMER.NUM_HEADS": 3},
}
THEIR_SCHEMES = ("divided_space_time", "joint_space_time", "space_only")
SKELETON, SQUARE = "skeleton", "square"
BLAS, ONEDNN = "", ", oneDNN"  # behind these names
SIDES = {"cuda": 8192, "cpu": 2048}  # side of the product whose rate is the peak that is measured


class Setting(NamedTuple):
    """What is measured.

    Attributes:
        what: forward or train.
        scheme: registered scheme.
        frames: of a clip.
        side: of its frames in pixels.
        precision: one of PRECISIONS.
        batch: clips in a pass.
        model: one of SIZES.
        keys: KEY VALUE pairs beside those of the recipe.
    """

    what: str
    scheme: str
    frames: int
    side: int
    precision: str
    batch: int
    model: str = "base"
    keys: tuple[str, ...] = ()

    @property
    def clip(self) -> tuple[int, int, int, int]:
        """Shape of a clip, (3, T, H, W)."""
        return 3, self.frames, self.side, self.side

    def cfg(self, device: torch.device) -> CfgNode:
        """Return the config of a run: the recipe's, and what measuring asks for."""
        clips = self.batch
        pairs: dict[str, object] = {
            "NUM_GPUS": int(device.type == "cuda"),
            "GLOBAL_BATCH_SIZE": clips,
            "TRAIN.BATCH_SIZE": clips,
            "TEST.BATCH_SIZE": clips,
            "TRAIN.AMP": PRECISIONS[self.precision].amp,
            "DATA.NUM_FRAMES": self.frames,
            "DATA.TRAIN_CROP_SIZE": self.side,
            "DATA.TEST_CROP_SIZE": self.side,
            "DATA.TRAIN_JITTER_SCALES": f"[{self.side},{self.side}]",
            "TIMESFORMER.ATTENTION_TYPE": self.scheme,
            "TIMESFORMER.DROP_PATH_RATE": 0.0,  # that of transformers can't have the same
            "TIMESFORMER.PRETRAINED_MODEL": "",
            "SOLVER.BASE_LR": 1e-6,  # labels mean nothing here: weights mustn't go to infinity
            "SOLVER.CLIP_GRAD_L2NORM": 1.0,
            **SIZES[self.model],
        }
        words = [str(word) for pair in pairs.items() for word in pair]
        return load_recipe(argparse.Namespace(cfg_file=RECIPE, opts=[*words, *self.keys]))


def make_ours(cfg: CfgNode) -> nn.Module:
    """Make the project's model with random weights, none of them zero."""
    torch.manual_seed(0)
    model = build_model(cfg)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.02 * torch.randn_like(weights))
    return model


def compiled(model: nn.Module) -> nn.Module:
    """Return a copy of the model whose blocks are compiled, as TRAIN.COMPILE does it."""
    model = copy.deepcopy(model)
    compile_blocks("--modes compiled", model)
    return model


class Theirs(nn.Module):
    """The TimeSformer of `transformers` with weights of ours, called as ours is.

    Args:
        ours: gives the weights; of one of `THEIR_SCHEMES`.

    Raises:
        ImportError: it isn't there, or can't be used with what is.
    """

    def __init__(self, ours: Any) -> None:
        super().__init__()
        import transformers

        made, scheme = ours.architecture, ours.architecture.attention_type
        state = dict(ours.model.state_dict())
        config = hugging_face.to_config(replace(made, attention_type="divided_space_time"), ())
        # Theirs has no time embeddings then, which the conversion asks for.
        state.setdefault("time_embed", state["cls_token"])
        state = hugging_face.from_native(state)
        if scheme == "space_only":
            del state["timesformer.embeddings.time_embeddings"]
        labels = made.num_classes
        config = transformers.TimesformerConfig(
            **config | {"attention_type": scheme, "num_labels": labels}
        )
        with torch.device(state["classifier.weight"].device):
            self.model = transformers.TimesformerForVideoClassification(config)
        self.model.load_state_dict(state)
        if scheme == "space_only":  # it takes the first frame's CLS where ours averages
            frames = made.num_frames
            self.model.timesformer.layernorm.register_forward_pre_hook(
                lambda _, args: (args[0].unflatten(0, (-1, frames)).mean(1),)
            )

    def forward(self, clips: Tensor) -> Tensor:
        """Clip (B, 3, T, H, W) -> logits (B, K)."""
        return self.model(clips.transpose(1, 2)).logits


def quantised(model: nn.Module) -> nn.Module:
    """Return a copy whose linear layers are int8: weights stored, activations rounded on the way.

    Raises:
        ImportError: this torch has none.
    """
    from torch.ao.quantization import quantize_dynamic

    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.__class__ = nn.Linear  # of others it takes no notice
    with warnings.catch_warnings():  # it is deprecated; where it has gone, that is told
        warnings.simplefilter("ignore")
        return quantize_dynamic(model.eval(), {nn.Linear}, dtype=torch.qint8)


def noise(setting: Setting, device: torch.device) -> Tensor:
    """Return normalised clips (B, 3, T, H, W)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(setting.batch, *setting.clip, generator=generator).to(device)


def forward(model: nn.Module, setting: Setting, device: torch.device) -> Contestant:
    """Return what computes the logits of clips that lie on the device."""
    precision = PRECISIONS[setting.precision]
    held: Callable[[], int] | None = partial(_bytes_of, model, None)
    if setting.precision == "int8":
        model, held = quantised(model), None  # packed weights don't tell their size
    clips = noise(setting, device)

    @torch.inference_mode()
    def run() -> Tensor:
        with autocast(device, precision.amp):
            return model(clips)

    return Contestant(run, precision.products, held, prepare=model.eval)


def training(model: nn.Module, setting: Setting, device: torch.device) -> Contestant:
    """Return what does a training step on uint8 clips that lie in the CPU's memory."""
    cfg = setting.cfg(device)
    records = [Record("noise", 0)] * setting.batch
    state = make_state(cfg, batch_layout(cfg, 1, 1), model, records)
    generator = torch.Generator().manual_seed(1)
    B = setting.batch
    clips = torch.randint(256, (B, *setting.clip), dtype=torch.uint8, generator=generator)
    labels = torch.randint(cfg.MODEL.NUM_CLASSES, (B,), generator=generator)
    if device.type == "cuda":
        clips, labels = clips.pin_memory(), labels.pin_memory()
    batch = (clips, labels, torch.arange(B), {"view": torch.zeros(B, dtype=torch.long)})
    steps = iter(range(10**9))

    def run() -> Tensor:
        result = train_step(state, [batch], 0, next(steps))
        return torch.tensor(result.sums)

    held = partial(_bytes_of, model, state.optimizer)
    products = PRECISIONS[setting.precision].products
    return Contestant(run, products, held, prepare=model.train)


def bounds(
    products: Sequence[Product], setting: Setting, device: torch.device, side: int
) -> dict[str, Contestant]:
    """Return what computes the products alone, and a large one, by all that computes products.

    Args:
        products: of a forward pass.
        setting: what is measured; there is nothing for integers.
        device: where.
        side: of the square matrices of the large product.
    """
    precision = PRECISIONS[setting.precision]
    if precision.dtype is None:
        return {}
    chosen = of_training(products) if setting.what == "train" else products
    left, right = (torch.randn(side, side, device=device).to(precision.dtype) for _ in range(2))
    onednn = device.type == "cpu" and precision.dtype is torch.float32 and AVAILABLE
    found = {}
    for name, way in ((BLAS, torch.mm), (ONEDNN, by_onednn))[: 1 + onednn]:
        whole = Skeleton(chosen, device, precision.dtype, onednn=way is by_onednn)
        found[SKELETON + name] = Contestant(whole.run, precision.products)
        found[SQUARE + name] = Contestant(partial(way, left, right), precision.products)
    return found


def difference(ours: nn.Module, theirs: nn.Module, clips: Tensor) -> float:
    """Return the greatest difference of two models' logits, in their own precision."""
    with torch.inference_mode():
        a, b = (model.eval()(clips).double() for model in (ours, theirs))
    return float((a - b).abs().max())


def _bytes_of(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> int:
    """Return the size of weights and of what the optimizer knows."""
    held: list[Any] = [*model.parameters(), *model.buffers()]
    if optimizer:
        held += [v for s in optimizer.state.values() for v in s.values()]
    return sum(v.nbytes for v in held if isinstance(v, Tensor))


Maker = Callable[[nn.Module, Setting, torch.device], Contestant]
MAKERS: Mapping[str, Maker] = {"forward": forward, "train": training}
