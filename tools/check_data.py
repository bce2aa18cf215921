"""Face of `timesformer check-data`."""

from timesformer.commands.check_data import main
from timesformer.utils.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
