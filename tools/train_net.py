"""Face of `timesformer train`, under the published module's name and with what it offered."""

from timesformer.commands.train import main
from timesformer.engine.evaluate import eval_epoch
from timesformer.engine.train import train, train_epoch
from timesformer.utils.errors import run_tool

__all__ = ["eval_epoch", "main", "train", "train_epoch"]

if __name__ == "__main__":
    run_tool(main)
