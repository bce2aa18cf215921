"""Print what a model costs: parameters, multiply-adds, memory.

Nothing is computed or allocated, so the largest models take seconds; no weights, videos or GPUs
are needed.

Example:
  timesformer profile --cfg Kinetics/TimeSformer_divST_8x32_224 --all-schemes DATA.NUM_FRAMES 16
"""

from __future__ import annotations

from collections.abc import Sequence

from fvcore.common.config import CfgNode

from timesformer.models.attention import ATTENTION_REGISTRY
from timesformer.models.build import has_scheme, label, meta_model, view_shape
from timesformer.models.profiling import Cost, profile
from timesformer.utils.errors import ConfigError
from timesformer.utils.parser import CommandParser, load_recipe
from timesformer.utils.text import counted, format_table

HEADER = (
    "scheme", "params", "GMACs/view", "GFLOPs/view", "TFLOPs (paper)", "weights MiB",
    "activations MiB/clip",
)  # fmt: skip
NOTES = """\
view: {frames} frames of {size}×{size}. GMACs: 10⁹ multiply-adds (fvcore). FLOPs = 2 × MACs.
TFLOPs (paper): 10¹² multiply-adds of {views}, as the paper counts. Training = 3 × forward.
weights: float32. activations: float32, what each training clip of {train_size}×{train_size} keeps
for the backward pass, with fused attention{checkpoint}."""


def measure(cfg: CfgNode) -> Cost:
    """Return the cost of the model of a config, for a test view and a training clip."""
    side = cfg.DATA.TRAIN_CROP_SIZE
    return profile(meta_model(cfg), view_shape(cfg), (3, cfg.DATA.NUM_FRAMES, side, side))


def table_row(scheme: str, cost: Cost, views: int) -> tuple[str, ...]:
    """Return the cells under HEADER."""
    numbers = (
        cost.macs / 1e9,
        2 * cost.macs / 1e9,
        views * cost.macs / 1e12,
        cost.weight_bytes / 2**20,
        cost.activation_bytes / 2**20,
    )
    # Tenths for large models, three digits for small ones.
    cells = (f"{x:,.1f}" if x >= 100 else f"{x:.3g}" for x in numbers)
    return (scheme, f"{cost.params:,}", *cells)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table of the model, or of every scheme."""
    parser = CommandParser("profile", __doc__, "--cfg FILE [options] [KEY VALUE ...]")
    parser.add_cfg("recipe of the model: a YAML file or a name")
    parser.add_argument(
        "--all-schemes", action="store_true", help="a row for every registered attention scheme"
    )
    parser.add_pairs()
    args = parser.parse(argv)
    cfg = load_recipe(args)

    views = cfg.TEST.NUM_ENSEMBLE_VIEWS * cfg.TEST.NUM_SPATIAL_CROPS
    schemes = [cfg.TIMESFORMER.ATTENTION_TYPE]
    if args.all_schemes:
        if not has_scheme(cfg):
            raise ConfigError(f"--all-schemes: {label(cfg)} has no attention scheme to change")
        schemes = [name for name, _ in ATTENTION_REGISTRY]
    rows: list[tuple[str, ...]] = [HEADER]
    for cfg.TIMESFORMER.ATTENTION_TYPE in schemes:
        rows.append(table_row(label(cfg), measure(cfg), views))
    notes = NOTES.format(
        frames=cfg.DATA.NUM_FRAMES,
        size=cfg.DATA.TEST_CROP_SIZE,
        views=counted(views, "view"),
        train_size=cfg.DATA.TRAIN_CROP_SIZE,
        checkpoint=" and activation checkpointing" if cfg.TIMESFORMER.ACT_CHECKPOINT else "",
    )
    print(format_table(rows), notes, sep="\n\n")
