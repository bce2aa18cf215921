"""How fast the model is, and how much memory it takes, beside what else there is.

python benchmarks/model.py [--what forward train] [--schemes …] [--shapes 8x224] [--precisions fp32]
                           [--modes eager compiled] [--batch 1] [--device cpu] [KEY VALUE …]

In one process, in turns: this project's model, eager or with its blocks compiled; the TimeSformer
of `transformers` with the same weights, as it comes (float32) and in the same precision, after a
look at whether both compute the same; the matrix products of the model and nothing else (its
"skeleton"); and one large product, which is the peak where the maker of the device says none.
A line for each setting goes to benchmarks/history.jsonl, which compare.py reads.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from model_parts import entrants, history
from model_parts.entrants import (
    MAKERS,
    SIDES,
    SIZES,
    SQUARE,
    THEIR_SCHEMES,
    Setting,
    Theirs,
)
from model_parts.rates import PRECISIONS, lacking, products, stated_peak
from model_parts.skeleton import products_of
from model_parts.table import (
    CLOCKS,
    HEADER,
    NOTE,
    OURS,
    THEIRS,
    THEIRS_SAME,
    Row,
)
from model_parts.turns import Contestant, Measured, take_turns
from report import environment
from torch import nn

from timesformer.models.attention import ATTENTION_REGISTRY
from timesformer.models.build import meta_model
from timesformer.models.profiling import activation_bytes, count_macs
from timesformer.models.timing import free_memory, peak_bytes
from timesformer.utils.errors import UserError, run_tool
from timesformer.utils.files import write_text
from timesformer.utils.peak_rates import FLOPS_PER_MAC
from timesformer.utils.text import format_table

ALLOWED = 1e-4  # between logits of both models in float32


def measure(setting: Setting, args: argparse.Namespace) -> Row:
    """Measure one setting.

    Raises:
        UserError: the two models don't compute the same.
    """
    device, notes = args.device, []
    cfg = setting.cfg(device)
    counted = meta_model(cfg)
    macs, needed = (
        count_macs(counted, setting.clip),
        products_of(counted, setting.clip, setting.batch),
    )
    if (found := sum(p.macs for p in needed)) != macs * setting.batch:
        raise UserError(f"the skeleton has {found:,} multiply-adds, the model {macs:,} a clip")
    contestants: dict[str, Contestant] = {}
    missing: dict[str, Measured] = {}
    ours = entrants.make_ours(cfg)
    make = partial(MAKERS[setting.what], setting=setting, device=device)
    for mode in args.modes:
        if why := too_large(counted, setting, device):
            missing[OURS[mode]] = Measured(note=why)
        elif mode == "compiled" and setting.precision == "int8":
            missing[OURS[mode]] = Measured(note="int8 layers aren't compiled")
        else:
            model = entrants.compiled(ours) if mode == "compiled" else ours
            contestants[OURS[mode]] = make(model)
    theirs, why = same_model(ours, setting, device)
    if theirs is None:
        notes.append(f"transformers: {why}")
        missing[THEIRS] = Measured(note=why)
    else:
        exact = setting._replace(precision="fp32")
        contestants[THEIRS] = MAKERS[setting.what](theirs, exact, device)
        if setting.precision != "fp32":
            contestants[THEIRS_SAME] = make(theirs)
    side = args.square or SIDES[device.type]
    bounds = entrants.bounds(needed, setting, device, side)
    if not bounds:
        notes.append("no skeleton and no large product in int8")
    contestants |= bounds
    found = take_turns(contestants, device, args.rounds, args.turn, args.memory)
    threads = torch.get_num_threads()
    row = Row(setting, found | missing, macs, None, "", notes, args.clock, threads)
    if peak := stated_peak(setting.precision, device):
        return row._replace(peak=peak, peak_by="its maker")
    if (square := row.fastest(SQUARE)).seconds:
        peak = 2 * side**3 / row.seconds(square) / 1e12
        return row._replace(peak=peak, peak_by=f"a measured product of {side}²")
    return row


def same_model(
    ours: nn.Module, setting: Setting, device: torch.device
) -> tuple[nn.Module | None, str]:
    """Return the model of transformers with our weights, or why there is none.

    Raises:
        UserError: its logits differ from ours in float32.
    """
    if setting.scheme not in THEIR_SCHEMES:
        return None, f"it has no {setting.scheme}"
    try:
        theirs = Theirs(ours)
    except Exception as error:  # whatever keeps it from being used, ours can be measured
        return None, f"can't be used ({type(error).__name__}: {error})"
    if why := too_large(theirs, setting, device):
        return None, why
    try:
        with products("ieee"):
            clips = entrants.noise(setting._replace(batch=1), device)
            apart = entrants.difference(ours, theirs, clips)
    except torch.OutOfMemoryError:
        return None, "out of memory"
    if not apart <= ALLOWED:
        raise UserError(
            f"{setting.scheme}: logits differ from those of transformers by {apart:.1e}, and by "
            f"{ALLOWED:.0e} at most they may: no times of models that compute different things"
        )
    print(f"{setting.scheme}: logits differ from transformers' by {apart:.1e}", file=sys.stderr)
    return theirs, ""


def too_large(model: nn.Module, setting: Setting, device: torch.device) -> str:
    """Return why a pass doesn't fit into the CPU's memory, or ""; a GPU says so by itself."""
    free = free_memory(device) if device.type == "cpu" else None
    if free is None:
        return ""
    weights = sum(p.nbytes for p in model.parameters())
    if setting.what == "train":  # gradients and momentum
        needed = 2 * weights + setting.batch * activation_bytes(model, setting.clip)
    else:
        needed = peak_bytes(model, setting.clip, setting.batch)
    needed += 2 * weights
    if needed < free:
        return ""
    return f"needs {needed / 2**30:.0f} GiB, {free / 2**30:.0f} are free"


def settings_of(args: argparse.Namespace) -> Iterator[Setting]:
    """Yield all settings that are asked for."""
    for shape, scheme, what, precision in itertools.product(
        args.shapes, args.schemes, args.what, args.precisions
    ):
        frames, side = map(int, shape.split("x"))
        for batch in args.batch:
            yield Setting(
                what, scheme, frames, side, precision, batch, args.model, tuple(args.keys)
            )


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    schemes = sorted(name for name, _ in ATTENTION_REGISTRY)
    add = parser.add_argument
    add("--what", nargs="+", choices=[*MAKERS], default=[*MAKERS])
    add("--schemes", nargs="+", choices=[*schemes, "all"], default=[*THEIR_SCHEMES])
    add("--shapes", nargs="+", default=["8x224"], metavar="TxS", help="8x224 16x448 96x224")
    add("--precisions", nargs="+", choices=[*PRECISIONS], default=["fp32"])
    add("--modes", nargs="+", choices=[*OURS], default=["eager"])
    add("--batch", nargs="+", type=int, default=[1])
    add("--model", choices=[*SIZES], default="base")
    add("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    add("--rounds", type=int, default=7)
    add("--turn", type=float, metavar="S", help="seconds of a turn at least (0.15; CPU: one pass)")
    add("--seconds", type=float, default=float("inf"), help="begin no setting after these")
    add("--square", type=int, metavar="N", help=f"side of the large product ({SIDES})")
    add("--clock", choices=[*CLOCKS], default="wall", help="cpu where others use the machine")
    add("--memory", action=argparse.BooleanOptionalAction, default=True)
    add("--history", type=Path, default=history.HISTORY, help="JSON lines (%(default)s)")
    add("--output", type=Path, help="where the table goes, too")
    add("keys", nargs="*", metavar="KEY VALUE", help="of the config")
    args = parser.parse_args(argv)
    args.words = sys.argv[1:] if argv is None else argv
    if "all" in args.schemes:
        args.schemes = schemes
    if args.turn is None:
        args.turn = 0.15 if args.device.type == "cuda" else 0.0
    if args.device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU")
    if args.device.type == "cuda" and args.clock == "cpu":
        parser.error("--clock cpu: a GPU's time isn't that of the cores")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, say what was found, and add it to the history."""
    args = parse_args(argv)
    rows: list[tuple[object, ...]] = [HEADER]
    notes: list[str] = []
    facts: dict[str, Any] = {}
    end = time.monotonic() + args.seconds
    for setting in settings_of(args):
        name = f"{setting.what}, {setting.scheme}, {setting.precision}"
        if why := lacking(setting.precision, args.device, setting.what):
            notes.append(f"{name}: not measured: {why}")
            continue
        if time.monotonic() > end:
            notes.append(f"{name}, batch {setting.batch}: not measured: no time left")
            continue
        cfg = setting.cfg(args.device)
        facts = history.conditions(cfg, args.device)
        row = measure(setting, args)
        history.append(args.history, facts | row.line())
        new = [*row.cells()]
        print(format_table([HEADER, *new]), file=sys.stderr, flush=True)
        rows += new
        peak = f"{row.peak:.3g} TFLOP/s, by {row.peak_by}" if row.peak else "not known"
        notes += [f"{name}: {note}" for note in (*row.notes, f"peak {peak}")]
        if args.output:  # as far as it is: the next row may take long
            write_text(args.output, report(rows, notes, facts, args, cfg.SOLVER.OPTIMIZING_METHOD))
        del row
        gc.collect()
    if not facts:
        raise UserError("; ".join(notes) or "nothing to measure")
    text = report(rows, notes, facts, args, cfg.SOLVER.OPTIMIZING_METHOD)
    if args.output:
        write_text(args.output, text)
    print(text, end="")


def report(
    rows: Sequence[tuple[object, ...]],
    notes: Sequence[str],
    facts: dict[str, Any],
    args: argparse.Namespace,
    optimizer: str,
) -> str:
    """Return the table with what has to be known to read it."""
    machine = facts["machine"]
    flops = " or ".join(f"{n} ({what})" for what, n in FLOPS_PER_MAC.items())
    note = NOTE.format(flops=flops, rounds=args.rounds, optimizer=optimizer)
    lines = [
        f"python benchmarks/model.py {' '.join(args.words)}",
        environment(),
        f"{machine['device']}, load {machine['load']}, commit {history.label(facts)}",
        "",
        format_table(rows),
        "",
        note,
        CLOCKS[args.clock],
        *dict.fromkeys(notes),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_tool(main)
