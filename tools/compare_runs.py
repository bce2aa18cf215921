"""Face of `timesformer compare-runs`."""

from timesformer.commands.compare_runs import main
from timesformer.utils.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
