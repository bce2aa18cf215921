"""Which parameters of a model are trained: the others get no gradient and no optimizer state."""

from __future__ import annotations

import logging

from torch import nn

from timesformer.models.attention import SpaceTimeBlock
from timesformer.models.lora import is_added
from timesformer.utils.errors import ConfigError
from timesformer.utils.patterns import selected
from timesformer.utils.text import counted

logger = logging.getLogger(__name__)


def freeze(model: nn.Module, patterns: str) -> None:
    """Freeze the parameters that patterns select, in place, and say how many are left.

    What LoRA adds is trained whatever they are, and the weights that it is added to aren't.

    Args:
        model: the model, not wrapped.
        patterns: see `utils.patterns`; names are those of checkpoints, without `model.` before.

    Raises:
        ConfigError: a pattern matches nothing, or nothing is left.
    """
    named = {n.removeprefix("model."): p for n, p in model.named_parameters() if not is_added(n)}
    for name in selected(named, patterns, "TRAIN.FREEZE"):
        named[name].requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise ConfigError(
            f"TRAIN.FREEZE {patterns!r:.200}: every parameter is frozen: except some, e.g. "
            "'*, !head'"
        )
    left = [name for name, parameter in named.items() if parameter.requires_grad]
    if len(trained) < len([*model.parameters()]):
        total, own = count(model), sum(p.numel() for p in trained)
        logger.info(
            "%s of %s parameters are trained (%.3g %%), in %s; %s are frozen",
            *(f"{own:,}", f"{total:,}", 100 * own / total, _where(trained, left)),
            f"{total - own:,}",
        )


def count(model: nn.Module) -> int:
    """Return the number of a model's parameters, frozen ones too."""
    return sum(p.numel() for p in model.parameters())


def _where(trained: list[nn.Parameter], left: list[str]) -> str:
    """Say which parameters are trained: the first parts of their names, each once."""
    parts = dict.fromkeys(name.partition(".")[0] for name in left)
    shown = ", ".join(parts) or "none of the model's own"
    added = len(trained) - len(left)
    return f"{counted(len(trained), 'tensor')} ({shown}{f', {added} of LoRA' if added else ''})"


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


def keep_statistics(model: nn.Module) -> None:
    """Let frozen BatchNorm layers of a model in training mode go on with their statistics.

    Else what is frozen would give other numbers from step to step.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            own = [*module.parameters(recurse=False)]
            if own and not any(p.requires_grad for p in own):
                module.eval()
