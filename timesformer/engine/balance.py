"""What a run does about classes with few videos, in words."""

from __future__ import annotations

import numpy as np
from fvcore.common.config import CfgNode

from timesformer.datasets.balance import quotas
from timesformer.engine.losses import class_weights
from timesformer.utils.logging import get_logger
from timesformer.utils.text import counted

logger = get_logger(__name__)


def log_balance(cfg: CfgNode, counts: np.ndarray) -> None:
    """Say what TRAIN.CLASS_BALANCE and MODEL.CLASS_WEIGHTS mean for these classes.

    Args:
        cfg: the config.
        counts: training videos of each class (K,).
    """
    there = np.flatnonzero(counts)
    rare, frequent = there[counts[there].argmin()], there[counts[there].argmax()]

    def name(label: int) -> str:
        return f"class {label} ({counted(int(counts[label]), 'video')})"

    balance, power = cfg.TRAIN.CLASS_BALANCE, cfg.MODEL.CLASS_WEIGHTS
    if balance:
        draws = quotas(counts, balance)
        logger.info(
            "TRAIN.CLASS_BALANCE %g: an epoch draws %s %d times, %s %d times",
            *(balance, name(frequent), draws[frequent], name(rare), draws[rare]),
        )
    if power:
        weights = class_weights(counts, power)
        logger.info(
            "MODEL.CLASS_WEIGHTS %g: the weight of %s is %.3g, that of %s %.3g",
            *(power, name(frequent), weights[frequent], name(rare), weights[rare]),
        )
    if balance and power:
        logger.warning(
            "TRAIN.CLASS_BALANCE %g and MODEL.CLASS_WEIGHTS %g make up for rare classes twice%s",
            *(balance, power),
            ", which count for more than frequent ones as their sum is above 1; one is enough"
            if balance + power > 1
            else "",
        )
