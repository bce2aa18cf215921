"""Face of `timesformer make-synthetic`."""

from timesformer.commands.make_synthetic import main
from timesformer.utils.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
