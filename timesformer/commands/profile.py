"""Print what a model costs: parameters, multiply-adds, memory; --time adds time.

Without --time nothing is computed or allocated, so the largest models take seconds. No weights,
videos or GPUs are needed.

Examples:
  timesformer profile --cfg Kinetics/TimeSformer_divST_8x32_224 --all-schemes DATA.NUM_FRAMES 16
  how long its test of a video takes, apart from reading it, on a GPU (NUM_GPUS 0: on the CPU):
    timesformer profile --cfg Baselines/SlowFast_R50_8x8 --time --batch 8
  which ways to train it fit into which GPU:
    timesformer profile --cfg Kinetics/TimeSformer_divST_8x32_224 --fits
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from fvcore.common.config import CfgNode

from timesformer.datasets.build import build_views
from timesformer.engine.fits import CONTEXT, fits
from timesformer.models.attention import ATTENTION_REGISTRY
from timesformer.models.build import (
    clip_shape,
    has_scheme,
    label,
    make_model,
    meta_model,
    view_shape,
)
from timesformer.models.profiling import Cost, profile
from timesformer.models.timing import check_memory, time_views
from timesformer.utils.distributed import device_for
from timesformer.utils.errors import ConfigError, UserError
from timesformer.utils.parser import CommandParser, load_recipe
from timesformer.utils.peak_rates import FLOPS_PER_MAC
from timesformer.utils.precision import autocast
from timesformer.utils.text import counted, format_table

HEADER = (
    "scheme", "params", "GMACs/view", "GFLOPs/view", "TFLOPs (paper)", "weights MiB",
    "activations MiB/clip",
)  # fmt: skip
NOTES = """\
view: {frames} frames of {size}×{size}. GMACs: 10⁹ multiply-adds, of a last MLP for all patches,
though it is computed for a few tokens. FLOPs = 2 × MACs.
TFLOPs (paper): 10¹² multiply-adds of {views}, as the paper counts. Training = 3 × forward.
weights: float32. activations: float32, what each training clip of {train_size}×{train_size} keeps
for the backward pass, with fused attention{checkpoint}."""

TIME_HEADER = (
    "scheme", "s/view", "views", "s/video", "videos/s", "TMACs/video", "GMACs/s"
)  # fmt: skip
TIME_NOTES = """\
Seconds of the model alone, without reading videos, TEST.AMP {amp}: {conditions}.
s/video: all {views} of the test. TMACs/video: 10¹² multiply-adds of these, TFLOPs (paper)."""


FITS_NOTES = """\
Clips of a forward pass of one process, of {frames} frames of {size}×{size}, worked out: weights,
gradients, what the optimizer keeps, activations, a tenth of all this, {context:g} GiB for CUDA.
GLOBAL_BATCH_SIZE is reached by accumulation, so 1 is enough for every recipe; "-": not even one.
LoRA: beside it, temporal_fc, time_embed and head are trained."""


def measure(cfg: CfgNode) -> Cost:
    """Return the cost of the model of a config, for a test view and a training clip."""
    return profile(meta_model(cfg), view_shape(cfg), clip_shape(cfg))


def table_row(scheme: str, cost: Cost, views: int) -> tuple[str, ...]:
    """Return the cells under HEADER."""
    numbers = (
        cost.macs / 1e9,
        FLOPS_PER_MAC["forward"] * cost.macs / 1e9,
        views * cost.macs / 1e12,
        cost.weight_bytes / 2**20,
        cost.activation_bytes / 2**20,
    )
    # Tenths for large models, three digits for small ones.
    cells = (f"{x:,.1f}" if x >= 100 else f"{x:.3g}" for x in numbers)
    return (scheme, f"{cost.params:,}", *cells)


def time_row(cfg: CfgNode, cost: Cost, batch: int, repeats: int) -> tuple[tuple[str, ...], str]:
    """Measure a model with fresh weights.

    Returns:
        The cells under TIME_HEADER, and how it was measured.

    Raises:
        UserError: there isn't the memory for it.
        ConfigError: NUM_GPUS asks for a GPU, and there is none.
    """
    device = device_for(cfg)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"NUM_GPUS {cfg.NUM_GPUS}: there is no usable GPU to measure on; NUM_GPUS 0 takes the "
            "CPU"
        )
    check_memory(meta_model(cfg), view_shape(cfg), batch, device.type)
    with autocast(device, cfg.TEST.AMP):
        timing = time_views(
            make_model(cfg), view_shape(cfg), batch=batch, repeats=repeats, device=device.type,
            desc=label(cfg),
        )  # fmt: skip
    views = build_views(cfg, "test").num_views
    video = views * timing.seconds
    numbers = (video, 1 / video, views * cost.macs / 1e12, cost.macs / timing.seconds / 1e9)
    cells = (f"{timing.seconds:.3g}", str(views), *(f"{x:.3g}" for x in numbers))
    return (label(cfg), *cells), timing.conditions()


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table of the model, or of every scheme."""
    parser = CommandParser("profile", __doc__, "--cfg FILE [options] [KEY VALUE ...]")
    parser.add_cfg("recipe of the model: a YAML file or a name")
    parser.add_argument(
        "--all-schemes", action="store_true", help="a row for every registered attention scheme"
    )
    parser.add_argument("--time", action="store_true", help="measure seconds, too")
    parser.add_argument(
        "--fits", action="store_true", help="how many clips of which training fit into a GPU"
    )
    for option, default, what in (
        ("--batch", 1, "views in a forward pass that is measured"),
        ("--repeats", 5, "forward passes that are measured, after one to warm up"),
    ):
        parser.add_argument(
            option, type=int, default=default, metavar="N", help=f"{what} ({default})"
        )
    parser.add_pairs()
    args = parser.parse(argv)
    if min(args.batch, args.repeats) < 1:
        raise UserError("--batch and --repeats must be at least 1")
    if not args.time:
        parser.refuse(args, ("--batch", "--repeats"), "goes with --time")
    cfg = load_recipe(args)
    if args.fits:
        parser.refuse(args, ("--time", "--all-schemes"), "doesn't go with --fits")
        notes = FITS_NOTES.format(
            frames=cfg.DATA.NUM_FRAMES, size=cfg.DATA.TRAIN_CROP_SIZE, context=CONTEXT
        )
        print(format_table(fits(cfg)), notes, sep="\n\n")
        return

    views = build_views(cfg, "test").num_views
    schemes = [cfg.TIMESFORMER.ATTENTION_TYPE]
    if args.all_schemes:
        if not has_scheme(cfg):
            raise ConfigError(f"--all-schemes: {label(cfg)} has no attention scheme to change")
        schemes = [name for name, _ in ATTENTION_REGISTRY]
    rows: list[tuple[str, ...]] = [HEADER]
    times: list[tuple[str, ...]] = [TIME_HEADER]
    conditions = ""
    for cfg.TIMESFORMER.ATTENTION_TYPE in schemes:
        cost = measure(cfg)
        rows.append(table_row(label(cfg), cost, views))
        if args.time:
            row, conditions = time_row(cfg, cost, args.batch, args.repeats)
            times.append(row)
    notes = NOTES.format(
        frames=cfg.DATA.NUM_FRAMES,
        size=cfg.DATA.TEST_CROP_SIZE,
        views=counted(views, "view"),
        train_size=cfg.DATA.TRAIN_CROP_SIZE,
        checkpoint=" and activation checkpointing" if cfg.TIMESFORMER.ACT_CHECKPOINT else "",
    )
    print(format_table(rows), notes, sep="\n\n")
    if args.time:
        notes = TIME_NOTES.format(
            amp=cfg.TEST.AMP, conditions=conditions, views=counted(views, "view")
        )
        print("", format_table(times), notes, sep="\n\n")
