"""Face of `timesformer prepare-data`."""

from timesformer.commands.prepare_data import main
from timesformer.utils.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
