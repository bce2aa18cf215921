"""Which recipe fits into which GPU: `timesformer profile --fits` of several, one below the other.

python benchmarks/fits.py > benchmarks/results/fits.txt

Computed, nothing is allocated or measured.
"""

from __future__ import annotations

from timesformer.config.defaults import get_cfg
from timesformer.config.recipes import find_recipe
from timesformer.engine.fits import CONTEXT, fits
from timesformer.engine.needs import ROOM
from timesformer.utils.text import format_table

RECIPES = (
    "Kinetics/TimeSformer_divST_8x32_224",
    "Kinetics/TimeSformer_divST_16x16_448",
    "Kinetics/TimeSformer_divST_96x4_224",
    "Kinetics/TimeSformer_jointST_8x32_224",
)
LARGE = ("MODEL.MODEL_NAME", "vit_large_patch16_224")


def main() -> None:
    """Print the tables."""
    print(
        "Clips of a forward pass of one process that fit, worked out, nothing measured: weights, "
        f"gradients, optimizer and activations, times {ROOM}, and {CONTEXT:g} GiB for CUDA.\n"
        '"-": not even one clip fits. LoRA: beside it, temporal_fc, time_embed and head are '
        "trained."
    )
    for name, options in (*((name, ()) for name in RECIPES), (RECIPES[0], LARGE)):
        cfg = get_cfg()
        cfg.merge_from_file(find_recipe(name))
        cfg.merge_from_list([*options])
        print("", " ".join((name, *options)), format_table(fits(cfg)), sep="\n", flush=True)


if __name__ == "__main__":
    main()
