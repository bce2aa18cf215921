"""What training takes of memory, computed; and which blocks recompute so that it takes less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from fvcore.common.config import CfgNode
from torch import nn

from timesformer.models.attention import SpaceTimeBlock
from timesformer.models.build import choose_trained, clip_shape, meta_model
from timesformer.models.network.vision_transformer import VisionTransformer
from timesformer.models.profiling import held_bytes
from timesformer.utils import eight_bit
from timesformer.utils.errors import ConfigError
from timesformer.utils.logging import get_logger

logger = get_logger(__name__)

GIB = 2**30
# What operators take for themselves, and what an allocator can't use: an allowance. On the CPU a
# process took up to a third more than its tensors, for which `batch.OF_CPU` leaves room.
ROOM = 1.1


class Needs(NamedTuple):
    """Bytes that a process takes for training."""

    trained: int  # parameters, a number
    weights: int  # and their average
    gathered: int  # gradients, and what the optimizer keeps
    fixed: int  # of a forward pass, whatever the batch
    per_clip: int  # of each clip of a forward pass, when it takes most

    def total(self, clips: int) -> int:
        """Return the bytes of a step whose forward passes are of so many clips."""
        return round(ROOM * (self.weights + self.gathered + self.fixed + clips * self.per_clip))

    def clips(self, memory: int) -> int:
        """Return how many clips of a forward pass fit into so many bytes."""
        return max(0, int((memory - self.total(0)) // (ROOM * self.per_clip)))


def trained_on_meta(cfg: CfgNode) -> nn.Module:
    """Return the model of a config as it is trained, without memory for its weights."""
    model = meta_model(cfg)
    choose_trained(cfg, model)
    return model


def training_needs(cfg: CfgNode, ranks: int = 1) -> Needs:
    """Work out what training takes; nothing is allocated.

    Args:
        cfg: the config; TRAIN.BATCH_SIZE plays no part.
        ranks: processes, which share weights and what is gathered with TRAIN.SHARDING fsdp.
    """
    model: Any = trained_on_meta(cfg)
    weights = sum(p.nbytes for p in (*model.parameters(), *model.buffers()))
    own = [p for p in model.parameters() if p.requires_grad]
    trained = sum(p.nbytes for p in own)
    gathered = trained + _of_optimizer(cfg, model)
    parts = ranks if cfg.TRAIN.SHARDING == "fsdp" else 1
    held = held_bytes(model, clip_shape(cfg), cfg.TRAIN.AMP)
    peak, blocks = held.peak, _differentiated(model)
    if cfg.TIMESFORMER.ACT_CHECKPOINT and blocks:
        # The backward pass makes a late block's activations again while nearly all else is there.
        without, saved = _of_blocks(cfg, model, blocks)
        peak = max(peak, held.per_clip + (saved if len(blocks) > 1 else without - held.per_clip))
    whole = weights * (2 if cfg.EMA.ENABLED else 1)
    number = sum(p.numel() for p in own)
    return Needs(number, whole // parts, gathered // parts, held.fixed, peak)


def _of_optimizer(cfg: CfgNode, model: nn.Module) -> int:
    """Return the bytes that an optimizer keeps after its first step."""
    method, own = cfg.SOLVER.OPTIMIZING_METHOD, [p for p in model.parameters() if p.requires_grad]
    if method == eight_bit.METHOD:
        return sum(map(eight_bit.gathered_bytes, own))
    moments = int(bool(cfg.SOLVER.MOMENTUM)) if method == "sgd" else 2
    return moments * sum(p.nbytes for p in own)


def plan_recomputing(cfg: CfgNode, model: nn.Module, clips: int) -> int:
    """Let as many blocks recompute their activations as TRAIN.ACTIVATION_GIB asks for, in place.

    The first ones do: when the backward pass comes to them, what the others kept is free again.
    The last block is never worth it, since its activations would be made anew before any other's
    are free.

    Args:
        cfg: the config.
        model: not wrapped.
        clips: in a forward pass of a process.

    Returns:
        The number of blocks.

    Raises:
        ConfigError: the budget is less than what can be reached.
    """
    budget = cfg.TRAIN.ACTIVATION_GIB
    if not budget:
        return 0
    blocks = _differentiated(model)
    if not blocks:
        raise ConfigError(
            f"TRAIN.ACTIVATION_GIB {budget:g}: {cfg.MODEL.MODEL_NAME} has no blocks that are "
            "differentiated: set it to 0"
        )
    meta = trained_on_meta(cfg)
    without, saved = (clips * kept for kept in _of_blocks(cfg, meta, _differentiated(meta)))
    most = len(blocks) - 1
    wanted = max(0, -(-(without - int(budget * GIB)) // saved)) if saved > 0 else 0
    if wanted > most or (not saved and without > budget * GIB):
        least = (without - most * saved) / GIB
        raise ConfigError(
            f"TRAIN.ACTIVATION_GIB {budget:g}: {clips} clips of a forward pass keep "
            f"{without / GIB:.3g} GiB, at the least {least:.3g}: raise it, or lower "
            "TRAIN.BATCH_SIZE, which keeps the step with GLOBAL_BATCH_SIZE"
        )
    for block in blocks[:wanted]:
        block.recompute = True
    logger.info(
        "TRAIN.ACTIVATION_GIB %g: %d of %d blocks recompute their activations; a forward pass "
        "keeps %.3g GiB, instead of %.3g",
        *(budget, wanted, len(blocks), (without - wanted * saved) / GIB, without / GIB),
    )
    return wanted


def _differentiated(model: nn.Module) -> list[Any]:
    """Return the blocks of a model's ViT that the backward pass goes through."""
    vits = [module for module in model.modules() if isinstance(module, VisionTransformer)]
    if not vits:
        return []
    blocks = [block for block in vits[0].blocks if isinstance(block, SpaceTimeBlock)]
    inside = {id(p) for block in blocks for p in block.parameters()}
    inside |= {id(p) for part in (vits[0].norm, vits[0].head) for p in part.parameters()}
    if any(p.requires_grad for p in vits[0].parameters() if id(p) not in inside):
        return blocks
    first = (i for i, b in enumerate(blocks) if any(p.requires_grad for p in b.parameters()))
    return blocks[next(first, len(blocks)) :]


def _of_blocks(cfg: CfgNode, model: Any, blocks: Sequence[Any]) -> tuple[int, int]:
    """Return the bytes that a clip keeps, and how many fewer with each block that recomputes.

    The last block isn't like the others, as CLS alone is read of it, and it isn't counted.

    Args:
        cfg: the config.
        model: on the meta device; it is changed.
        blocks: its blocks that are differentiated.
    """
    kept = []
    model.set_grad_checkpointing(False)
    for recomputing in (False, True):
        for block in blocks[:-1]:
            block.recompute = recomputing
        kept.append(held_bytes(model, clip_shape(cfg), cfg.TRAIN.AMP).per_clip)
    return kept[0], (kept[0] - kept[1]) // max(1, len(blocks) - 1)
