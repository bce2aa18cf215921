r"""Redo a figure or a table of the papers, with our own numbers.

A figure is drawn from many runs: each is a process with a folder in DIR/runs, and figures that need
the same run share it. What is missing is done, --jobs at a time; a sweep that was ended goes on
where it was with --resume. Then the figure lies in DIR as PNG and CSV. A table needs no training.

Examples:
  what there is:
    timesformer reproduce --list
  a figure on the generated videos, which are made if they aren't there:
    timesformer reproduce --figure schemes --jobs 2
  another one, with the runs that both need:
    timesformer reproduce --figure positions --jobs 2 --resume
  the same at full size: one process of 8 GPUs after another, or the commands for a cluster
    timesformer reproduce --figure schemes --data kinetics --seeds 1 --out runs/k400 \
        NUM_GPUS 8 DATA.PATH_TO_DATA_DIR data/k400
    timesformer reproduce --figure schemes --data kinetics --seeds 1 --out runs/k400 --dry-run \
        NUM_GPUS 8 DATA.PATH_TO_DATA_DIR data/k400
  a table; one that has a picture, of what other papers print:
    timesformer reproduce --table schemes --out tables
    timesformer reproduce --table competitors --data-set k400 --out tables
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path

import timesformer.studies.catalogue  # noqa: F401  (registers figures and tables)
from timesformer.studies.competitors import DATA_SETS
from timesformer.studies.figure import check_settings, figure_files, write_figure
from timesformer.studies.plan import RUNS, Plan, make_plan
from timesformer.studies.preparation import check_machine, make_data
from timesformer.studies.registry import (
    PICTURE_REGISTRY,
    STUDY_REGISTRY,
    TABLE_REGISTRY,
    find,
    names,
    summary,
)
from timesformer.studies.results import read_rows
from timesformer.studies.study import DATA
from timesformer.studies.sweep import at_once, counted_runs, missing, sweep
from timesformer.utils.errors import UserError
from timesformer.utils.files import LOCK_NAME, make_places, write_text
from timesformer.utils.parser import CommandParser, output_path
from timesformer.utils.run_lock import run_lock
from timesformer.utils.text import counted, format_table

DEFAULT_OUT = Path("runs/reproduce")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Raises:
        UserError: options that don't go together, or a number that can't be.
    """
    parser = CommandParser("reproduce", __doc__, "--figure NAME [options] [KEY VALUE ...]")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--figure", metavar="NAME", help="train, test and draw")
    what.add_argument("--table", metavar="NAME", help="print a table")
    what.add_argument("--list", action="store_true", help="say which figures and tables there are")
    parser.add_argument(
        "--data", choices=DATA, default="synthetic", help="of a figure (synthetic: both twins)"
    )
    parser.add_argument(
        "--data-set", choices=DATA_SETS, metavar="NAME",
        help=f"of --table competitors: {', '.join(DATA_SETS)} (all)",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each kind (3)")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N",
        help="runs at a time, each with its share of the cores and NUM_GPUS GPUs of its own (1)",
    )  # fmt: skip
    parser.add_argument(
        "--resume",
        action="store_true",
        help="take what is complete in DIR, and go on with the rest",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the commands of all runs, and do nothing"
    )
    parser.add_argument(
        "--out", type=output_path, metavar="DIR",
        help=f"folder of runs and figures ({DEFAULT_OUT}); of a table: write it there too",
    )  # fmt: skip
    parser.add_pairs()
    args = parser.parse(argv)
    parser.need_positive(args, "--seeds", "--jobs")
    if not args.table:
        parser.refuse(args, ["--data-set"], "is for a --table; a --figure has --data")
    if not args.figure:
        runs = ("--data", "--seeds", "--jobs", "--resume", "--dry-run")
        parser.refuse(args, runs, "is for a --figure")
        if args.opts:
            raise UserError(f"{args.opts[0]}: KEY VALUE pairs are for the runs of a --figure")
    if args.list:
        parser.refuse(args, ["--out"], "--list writes no files")
    return args


def list_all() -> str:
    """Return a table of all figures and tables."""
    rows = [("", "name", "what it shows")]
    for option, registry in (("--figure", STUDY_REGISTRY), ("--table", TABLE_REGISTRY)):
        rows += [(option, name, summary(registry.get(name))) for name in names(registry)]
    return format_table(rows)


def print_table(name: str, out: Path | None, data_set: str | None = None) -> None:
    """Print a table, and write it to OUT/NAME.txt, with its picture if it has one.

    Raises:
        UserError: there is no such table, or it isn't one of several data sets.
    """
    table = find(TABLE_REGISTRY, "--table", name)
    asked = {"data_set": data_set} if data_set else {}
    if asked and not asked.keys() <= inspect.signature(table).parameters.keys():
        raise UserError(f"--data-set {data_set}: --table {name} isn't one of several data sets")
    file, picture = f"{name}.txt", f"{name}.png"
    if data_set:
        file, picture = f"{name}_{data_set}.txt", f"{name}_{data_set}.png"
    drawn = name in PICTURE_REGISTRY
    if out:
        make_places(out, [file, picture] if drawn else [file])
    text = table(**asked)
    print(text)
    if not out:
        return
    write_text(out / file, text + "\n")
    if drawn and (figure := PICTURE_REGISTRY.get(name)(**asked)):
        from timesformer.visualization.style import write_png  # matplotlib

        write_png(out / picture, figure)


def draw_figure(plan: Plan, args: argparse.Namespace, out: Path) -> None:
    """Do the runs that are missing, and draw what there is then.

    Raises:
        UserError: OUT has runs and --resume isn't given, or this figure of other settings; the data
            or the GPUs aren't there.
        ModuleNotFoundError: there is no matplotlib, which is told before hours of training.
    """
    from timesformer.visualization import studies  # noqa: F401

    files = figure_files(out, args.figure, args.data)
    make_places(out, [LOCK_NAME, *(file.name for file in files)])
    with run_lock(out, "--out"):
        if not args.resume and (out / RUNS).exists():
            raise UserError(
                f"{out} has runs already: --resume takes those that are complete and goes on with "
                "the rest; or choose another --out"
            )
        check_settings(plan, files[0])
        left = len(missing(plan.runs))
        at_once(f"{args.figure}: {counted_runs(len(plan.runs), left)}, in {out / RUNS}")
        failed: dict[str, str] = {}
        if left:
            check_machine(plan, args.jobs)
            make_data(plan)
            failed = sweep(plan.runs, args.jobs)
        rows = read_rows(plan)
        if any(row.estimate for row in rows):
            for file in write_figure(plan, rows, args.data, out):
                print(f"wrote {file}")
        else:  # rather than in place of a figure that has numbers
            print("no run is complete, so no figure is drawn")
    if failed:
        said = f"{counted(len(failed), 'run')} failed; --resume tries them again"
        print(f"error: {said}", file=sys.stderr)
        sys.exit(1)


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the words say."""
    args = parse_args(argv)
    if args.list:
        print(list_all())
        return
    if args.table:
        print_table(args.table, args.out, args.data_set)
        return
    out = args.out or DEFAULT_OUT
    study = find(STUDY_REGISTRY, "--figure", args.figure)()
    plan = make_plan(args.figure, study, DATA[args.data], args.seeds, args.opts, out)
    if args.dry_run:
        for run in plan.runs.values():
            print(run.command)
        return
    draw_figure(plan, args, out)
