"""Which ways to train a recipe fit into which GPU's memory: computed, nothing is allocated."""

from __future__ import annotations

from collections.abc import Sequence

from fvcore.common.config import CfgNode

from timesformer.config.validate import check
from timesformer.engine.needs import GIB, training_needs
from timesformer.utils.errors import ConfigError

MEMORIES = (8, 16, 24, 40, 80, 141)  # GiB
CONTEXT = 1.0  # GiB that CUDA and its libraries take for themselves
HEADER = ("training", "trained", "weights, optimizer", "a clip", *(f"{m} GB" for m in MEMORIES))

_BF16 = ("TRAIN.AMP", "bf16")
# Of TRAIN.FREEZE.
TEMPORAL = "*, !temporal_*, !time_embed, !head"
BESIDE_LORA = "*, !temporal_fc, !time_embed, !head"
HEAD = "*, !head"
WAYS: dict[str, tuple[object, ...]] = {
    "as configured": (),
    "TRAIN.AMP bf16": _BF16,
    "bf16, adamw": (*_BF16, "SOLVER.OPTIMIZING_METHOD", "adamw"),
    "bf16, adamw8bit": (*_BF16, "SOLVER.OPTIMIZING_METHOD", "adamw8bit"),
    "bf16, ACT_CHECKPOINT": (*_BF16, "TIMESFORMER.ACT_CHECKPOINT", True),
    "bf16, temporal and head": (*_BF16, "TRAIN.FREEZE", TEMPORAL),
    "bf16, LoRA of rank 8": (*_BF16, "LORA.RANK", 8, "TRAIN.FREEZE", BESIDE_LORA),
    "bf16, LoRA, ACT_CHECKPOINT": (
        *(*_BF16, "LORA.RANK", 8, "TRAIN.FREEZE", BESIDE_LORA),
        *("TIMESFORMER.ACT_CHECKPOINT", True),
    ),
    "bf16, head alone": (*_BF16, "TRAIN.FREEZE", HEAD),
}
"""What is changed of a recipe, by what it is called."""


def fits(cfg: CfgNode, ways: Sequence[str] = tuple(WAYS)) -> list[tuple[str, ...]]:
    """Return a table, its header first: clips of a forward pass that fit; "-" if not even one does.

    A way that isn't for the model, e.g. temporal steps of one without, or for the rest of the
    config, is left out.

    Args:
        cfg: the config.
        ways: of WAYS.

    Raises:
        ConfigError: the config fits what a clip keeps to the batch.
    """
    if cfg.TRAIN.ACTIVATION_GIB:
        raise ConfigError(
            "TRAIN.ACTIVATION_GIB fits what is kept to a batch, and here the batch is looked for: "
            "set it to 0"
        )
    rows: list[tuple[str, ...]] = [HEADER]
    for way in ways:
        changed = cfg.clone()
        changed.merge_from_list([*WAYS[way]])
        try:
            check(changed)
            needs = training_needs(changed)
        except ConfigError:
            if not WAYS[way]:
                raise
            continue
        clips = [needs.clips(int((memory - CONTEXT) * GIB)) for memory in MEMORIES]
        rows.append(
            (
                way,
                f"{needs.trained / 1e6:,.3g} M",
                f"{(needs.weights + needs.gathered) / GIB:.2f} GiB",
                f"{needs.per_clip / GIB:.2f} GiB",
                *(f"{n:,}" if n else "-" for n in clips),
            )
        )
    return rows
