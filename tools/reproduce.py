"""Face of `timesformer reproduce`."""

from timesformer.commands.reproduce import main
from timesformer.utils.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
