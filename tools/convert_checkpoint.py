"""Face of `timesformer convert`."""

from timesformer.commands.convert import main
from timesformer.utils.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
