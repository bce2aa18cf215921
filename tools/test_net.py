"""The published module name for testing; `tools/run_net.py` is the program to run."""

from timesformer.engine.evaluate import perform_test, test

__all__ = ["perform_test", "test"]
