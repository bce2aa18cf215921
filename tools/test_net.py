"""Face of `timesformer test`, under the published module's name and with what it offered."""

from timesformer.commands.test import main
from timesformer.engine.evaluate import perform_test, test
from timesformer.utils.errors import run_tool

__all__ = ["main", "perform_test", "test"]

if __name__ == "__main__":
    run_tool(main)
