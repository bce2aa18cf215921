"""Which parameters of a model are trained: the others get no gradient and no optimizer state."""

from __future__ import annotations

import logging
from collections.abc import Collection

from torch import nn

from timesformer.models.attention import SpaceTimeBlock
from timesformer.models.lora import is_added
from timesformer.utils.errors import ConfigError
from timesformer.utils.patterns import selected
from timesformer.utils.text import counted

logger = logging.getLogger(__name__)


def freeze(model: nn.Module, patterns: str) -> None:
    """Freeze the parameters that patterns select, in place.

    What LoRA adds is trained whatever they are, and the weights that it is added to aren't.

    Args:
        model: the model, not wrapped.
        patterns: see `utils.patterns`; names are those of checkpoints, without `model.` before.

    Raises:
        ConfigError: a pattern matches nothing, or nothing is left.
    """
    named = _own_parameters(model)
    for name in frozen_by(model, patterns):
        named[name].requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError(
            f"TRAIN.FREEZE {patterns!r:.200}: every parameter is frozen: except some, e.g. "
            "'*, !head'"
        )


def frozen_by(model: nn.Module, patterns: str) -> set[str]:
    """Return the names of the parameters that patterns select, LoRA's aside.

    Raises:
        ConfigError: a pattern matches nothing.
    """
    return selected(_own_parameters(model), patterns, "TRAIN.FREEZE")


def _own_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    return {n.removeprefix("model."): p for n, p in model.named_parameters() if not is_added(n)}


def log_trained(model: nn.Module) -> None:
    """Say which parameters of a model are trained, if some aren't."""
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    total, own = (sum(p.numel() for p in some) for some in (model.parameters(), trained.values()))
    if own == total:
        return
    left = [name.removeprefix("model.") for name in trained if not is_added(name)]
    parts = ", ".join(dict.fromkeys(name.partition(".")[0] for name in left))
    if added := len(trained) - len(left):
        parts += f"{', ' * bool(parts)}{added} of LoRA"
    logger.info(
        "%s of %s parameters are trained (%.3g %%), in %s (%s); %s are frozen",
        *(f"{own:,}", f"{total:,}", 100 * own / total, counted(len(trained), "tensor"), parts),
        f"{total - own:,}",
    )


def warn_of_dead_ends(model: nn.Module) -> None:
    """Warn of steps of attention that end in a layer which is zero, and frozen there.

    Image weights leave them so. What comes before such a layer gets no gradient and has no effect.
    """
    dead = {
        part
        for block in model.modules()
        if isinstance(block, SpaceTimeBlock)
        for part in block.zero_init
        if not any(p.requires_grad or bool(p.any()) for p in block.get_submodule(part).parameters())
    }
    for part in sorted(dead):
        logger.warning(
            "TRAIN.FREEZE freezes %s, which is zero as image weights leave it: that step stays "
            "without effect; except it: !%s",
            *(part, part),
        )


def warn_of_random(model: nn.Module, fresh: Collection[str]) -> None:
    """Warn of weights that are frozen as they were drawn, since none were read for them.

    Args:
        model: the model, not wrapped.
        fresh: names of weights that none were read for.
    """
    drawn = [
        name
        for name, parameter in _own_parameters(model).items()
        if name in fresh
        and name != "time_embed"  # may start as sines
        and not parameter.requires_grad
        and bool((parameter != parameter.flatten()[0]).any())
    ]
    if drawn:
        logger.warning(
            "%s %s frozen at random, as no weights were read for %s: start from weights that have "
            "%s, or let TRAIN.FREEZE (and LORA.TARGETS) except %s",
            f"{', '.join(drawn[:4])}{', …' * (len(drawn) > 4)}",
            *(("is", *["it"] * 3) if len(drawn) == 1 else ("are", *["them"] * 3)),
        )


def keep_statistics(model: nn.Module) -> None:
    """Let frozen BatchNorm layers of a model in training mode go on with their statistics.

    Else what is frozen would give other numbers from step to step.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            own = [*module.parameters(recurse=False)]
            if own and not any(p.requires_grad for p in own):
                module.eval()
