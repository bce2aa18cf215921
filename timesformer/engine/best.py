"""The epoch that did best in validation: its checkpoint, and when to stop waiting for a better."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timesformer.engine.ema import PREFIX
from timesformer.engine.runs import read_stats, validations
from timesformer.engine.state import TrainState, save
from timesformer.utils.checkpoint import Place, get_path_to_best, read_checkpoint
from timesformer.utils.distributed import from_main, is_main, together
from timesformer.utils.errors import UserError, WeightsError
from timesformer.utils.logging import get_logger, rounded

logger = get_logger(__name__)


class Best:
    """Keeps `checkpoint_best.pyth`, and counts the epochs since.

    It is by map where videos have several labels, else by top-1, of the weights that are tested
    (TEST.WEIGHTS); of equals the first stays.
    What it knows is in the file, so a run that goes on knows it too.

    Args:
        state: the run.
    """

    def __init__(self, state: TrainState) -> None:
        self.state = state
        average = PREFIX if state.cfg.TEST.WEIGHTS == "ema" else ""
        self.metric = average + ("map" if state.cfg.DATA.MULTI_LABEL else "top1_acc")
        self.epoch: int | None = None
        self.value = float("-inf")
        if state.epoch:  # one that goes on
            self.epoch, self.value = from_main(self._read() if is_main() else (None, self.value))
        self.kept = self.before = self.value  # of the file, and of the file before

    def _read(self) -> tuple[int | None, float]:
        path = get_path_to_best(self.state.cfg.OUTPUT_DIR)
        if not path.exists():
            return None, self.value
        try:
            said: Any = read_checkpoint(path, require_digest=True).get("validation")
        except WeightsError as error:
            logger.warning("%s; the next validation makes another", error)
            return None, self.value
        said = said if isinstance(said, Mapping) else {}
        if said.get("list", self.state.val_list) != self.state.val_list:
            logger.warning(
                "%s was the best on another validation list: the next validation makes another",
                path,
            )
            return None, self.value
        epoch, value = said.get("epoch"), said.get(self.metric)
        if not isinstance(epoch, int) or not isinstance(value, int | float):
            return None, self.value  # by another metric
        if epoch >= self.state.epoch:
            logger.warning(
                "%s was the best of what was trained after %s, from where this run goes on: the "
                "next validation makes another",
                *(path, Place(self.state.epoch, self.state.step)),
            )
            self.state.saver.superseded = [*self.state.saver.superseded, path]
            return None, self.value
        return epoch, float(value)

    def update(self, epoch: int, stats: Mapping[str, Any]) -> None:
        """Note the validation of an epoch (from 0); keep its weights if it is the best so far.

        Args:
            epoch: whose weights the run has.
            stats: as `eval_epoch` returns them, or as they stand in stats.jsonl.
        """
        saver = self.state.saver
        lost = together(lambda: saver.take_lost_best() if is_main() else False)
        value = None if stats.get("overflowed_videos") else stats.get(self.metric)
        value, lost = from_main((value, lost))
        if lost:  # the best that can be kept of those to come is better than a former one
            self.kept = self.before
        if not isinstance(value, int | float):
            return
        if (value := rounded(value)) > self.value:
            self.epoch, self.value = epoch, value
        if value > self.kept:
            validation = {"epoch": epoch, self.metric: value, "list": self.state.val_list}
            save(self.state, epoch, validation)
            self.before, self.kept = self.kept, value

    def waited_enough(self, done: int) -> bool:
        """Tell whether `done` epochs are enough: SOLVER.EARLY_STOP_EPOCHS without a better one.

        To be asked after a validation: the one to come may be better.
        """
        patience = self.state.cfg.SOLVER.EARLY_STOP_EPOCHS
        if not patience or self.epoch is None or done - 1 - self.epoch < patience:
            return False
        logger.info(
            "stopping after %d epochs: none of the last %d was better than epoch %d (%s %.2f %%)",
            *(done, done - 1 - self.epoch, self.epoch + 1, self.metric, self.value),
        )
        return True


def logged_validation(state: TrainState, epoch: int) -> Mapping[str, Any] | None:
    """Return what a run that goes on has logged of an epoch's validation (from 0), if it has."""
    return from_main(_logged_validation(state, epoch) if is_main() else None)


def _logged_validation(state: TrainState, epoch: int) -> Mapping[str, Any] | None:
    folder = Path(state.cfg.OUTPUT_DIR)
    if not state.resumed or not (folder / "stats.jsonl").is_file():
        return None
    try:
        logged = validations(read_stats(folder)).get(str(epoch + 1))
    except UserError as error:
        logger.warning("%s; so it isn't known whether epoch %d was validated", error, epoch + 1)
        return None
    # What another list gave says nothing of this one; lines of earlier versions don't name theirs.
    same = logged and state.val_list.startswith(str(logged.get("list", "")))
    return logged if same else None
