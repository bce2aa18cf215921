"""Whether model or loader limits a training run, and what can be done about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from timesformer.config.fewer_tokens import reduced_epochs
from timesformer.datasets.loader import VideoLoader
from timesformer.datasets.worker_count import cores_of_rank
from timesformer.engine.state import TrainState
from timesformer.models.build import clip_shape, meta_model
from timesformer.models.profiling import count_macs
from timesformer.utils.logging import get_logger
from timesformer.utils.peak_rates import FLOPS_PER_MAC, peak_rate

logger = get_logger(__name__)

MODEL, LOADER = "model", "loader"
LIMITS = 0.1  # share of the time, waited for videos, from which on the loader is the limit


class Pace:
    """Judges epochs; all ranks make one together.

    Args:
        state: the run, whose model is whole, or shared, by now.
        loader: of the training videos.
    """

    def __init__(self, state: TrainState, loader: VideoLoader) -> None:
        self.workers, self.cores = loader.num_workers, cores_of_rank()
        self.full_from = reduced_epochs(state.cfg)
        self.flops = self.peak = 0.0  # of a clip, and a second of all ranks; 0: not known
        peak = peak_rate(state.device, state.cfg.TRAIN.AMP)
        # Where parts are frozen, much of the backward pass isn't computed, and 6 would be too many.
        if peak and all(parameter.requires_grad for parameter in state.model.parameters()):
            macs = count_macs(meta_model(state.cfg), clip_shape(state.cfg))
            self.flops = FLOPS_PER_MAC["train"] * float(macs)
            self.peak = peak * 1e12 * state.layout.ranks

    def judge(self, epoch: int, stats: Mapping[str, Any]) -> dict[str, Any]:
        """Say what limited an epoch, in the log and as keys for stats.jsonl.

        Args:
            epoch: from 0.
            stats: of the epoch, as `TrainMeter` says them.
        """
        rate, share, first = (stats[k] for k in ("clips_per_s", "data_wait", "data_wait_first"))
        mfu = None
        if self.peak and epoch >= self.full_from:
            mfu = rate * self.flops / self.peak
        later = share - first / stats["step_seconds"] if stats["step_seconds"] else 0.0
        limit = LOADER if later >= LIMITS else MODEL
        said = [
            f"epoch {epoch + 1}: {rate:.3g} clips/s",
            "" if mfu is None else f", {100 * mfu:.1f} % MFU",
            f"; the {limit} was the limit: {'it' if limit == MODEL else 'the model'} ",
            f"waited for videos {100 * share:.0f} % of the time",
        ]
        if share >= LIMITS and first:
            said.append(f", {first:.2g} s of it for the first")
        if limit == LOADER:
            said.append(f". Without it would be {rate / (1 - later):.3g} clips/s: {self._advice()}")
        logger.info("%s", "".join(said))
        return {"mfu": mfu, "limit": limit}

    def _advice(self) -> str:
        more = math.floor(self.cores + 1e-6) - 1
        if self.workers < more:
            return (
                f"a rank has {self.cores:.3g} cores, set DATA_LOADER.NUM_WORKERS {more} instead of "
                f"{self.workers}, or auto"
            )
        return (
            "the workers have all the cores; copies by `timesformer prepare-data` load faster, and "
            "`timesformer check-data` measures how much"
        )
