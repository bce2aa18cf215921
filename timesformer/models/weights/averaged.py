"""Which weights of a checkpoint are meant: those of the last step, or their moving average."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from timesformer.utils.errors import WeightsError

logger = logging.getLogger(__name__)

_NAMES = {"raw": "the weights themselves are taken", "ema": "the average is taken"}


def chosen(source: object, content: Mapping[str, Any], which: str | None) -> Mapping[str, Any]:
    """Return the content of a file with one set of weights, under `model_state`.

    Args:
        source: the file's name.
        content: what is in it.
        which: raw or ema; None takes those that it says are to be used.

    Raises:
        WeightsError: the average is asked for, and there is none.
    """
    average = content.get("ema_state")
    if not isinstance(average, Mapping) or not isinstance(content.get("model_state"), Mapping):
        if which == "ema":
            raise WeightsError(
                f"{source}: has no moving average beside its weights, which runs with EMA.ENABLED "
                "True save: take its weights (TEST.WEIGHTS raw)"
            )
        return content
    which = which or ("ema" if content.get("use_weights") == "ema" else "raw")
    logger.info("%s has weights and their moving average: %s", source, _NAMES[which])
    rest = {key: value for key, value in content.items() if key != "ema_state"}
    return rest | {"model_state": average} if which == "ema" else rest
