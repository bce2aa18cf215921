"""Face of `timesformer plot-predictions`."""

from timesformer.commands.plot_predictions import main
from timesformer.utils.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
