"""The published module name for training; `tools/run_net.py` is the program to run."""

from timesformer.engine.evaluate import eval_epoch
from timesformer.engine.train import train, train_epoch

__all__ = ["eval_epoch", "train", "train_epoch"]
