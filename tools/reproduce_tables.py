"""Face of `timesformer reproduce-tables`."""

from timesformer.commands.reproduce_tables import main
from timesformer.utils.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
