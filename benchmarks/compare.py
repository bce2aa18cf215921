"""Is one commit faster than another? Compares what model.py has measured of both.

python benchmarks/compare.py A B [--history FILE]    # B against A
python benchmarks/compare.py --plot docs/images/speed_history.png

A and B are commits as git knows them; with `-dirty` behind, the state of somebody's changes to one.
Only what was measured on the same machine, with the same threads and setting, is compared. Bounds
are those that 95 % of resampled medians lie within; where they hold 1, the difference may be noise.
"÷ skeleton" compares seconds over those of the matrix products alone in the same round: it is the
better measure where other work shared the machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from model_parts import history
from model_parts.entrants import SKELETON
from model_parts.table import OURS

from timesformer.utils.errors import UserError, run_tool
from timesformer.utils.parser import png_path
from timesformer.utils.text import format_table

RESAMPLED = 2000
HEADER = ("what", "clip", "scheme", "precision", "batch", "model", "s before", "s after",
          "× as fast", "95 %", "by ÷ skeleton", "95 %", "verdict")  # fmt: skip


class Key(NamedTuple):
    """What has to be the same for times to be compared: JSON of machine and setting, and whose."""

    machine: str
    setting: str
    name: str


class Times(NamedTuple):
    """Seconds of the rounds, and over those of the skeleton in the same round, perhaps none."""

    seconds: list[float]
    relative: list[float]


def times_of(lines: Sequence[Mapping[str, Any]]) -> dict[str, dict[Key, Times]]:
    """Return the times of every commit, in the order of the file; several lines add up."""
    found: dict[str, dict[Key, Times]] = defaultdict(dict)
    for line in lines:
        commit = line["commit"] + ("-dirty" if line["dirty"] else "")
        clock = line.get("clock", "wall")
        which = "cpu_seconds" if clock == "cpu" else "seconds"
        machine = {k: line["machine"][k] for k in ("device", "threads")} | {"clock": clock}
        setting = json.dumps(line["setting"], sort_keys=True)
        skeletons = [
            found[which]
            for name, found in line["results"].items()
            if name.startswith(SKELETON) and found[which]
        ]
        skeleton = min(skeletons, key=np.median, default=[])
        for name in OURS.values():
            seconds = line["results"].get(name, {}).get(which, [])
            if not seconds:
                continue
            key = Key(json.dumps(machine), setting, name)
            times = found[commit].setdefault(key, Times([], []))
            times.seconds.extend(seconds)
            if skeleton:
                pairs = zip(seconds, skeleton, strict=True)
                times.relative.extend(a / b for a, b in pairs)
    return found


def gain(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """Return how many times as small the median has become, and bounds of it.

    Medians are taken of rounds that are drawn again, with replacement.
    """
    rng = np.random.default_rng(0)
    a, b = (np.asarray(x) for x in (before, after))
    medians = [np.median(x[rng.integers(len(x), size=(RESAMPLED, len(x)))], axis=1) for x in (a, b)]
    low, high = np.quantile(medians[0] / medians[1], (0.025, 0.975))
    return float(np.median(a) / np.median(b)), float(low), float(high)


def verdict(low: float, high: float) -> str:
    """Return in a word what bounds of a gain say."""
    if low > 1:
        return "faster"
    return "SLOWER" if high < 1 else "within noise"


def comparison(before: Mapping[Key, Times], after: Mapping[Key, Times]) -> str:
    """Return the table of what was measured of both."""
    rows: list[tuple[object, ...]] = [HEADER]
    for key in before:
        if key not in after:
            continue
        setting = json.loads(key.setting)
        one, other = before[key], after[key]
        cells = [*_cells(one.seconds, other.seconds)]
        # The skeleton's own noise is in it, and what slows the whole machine down isn't.
        best = (one.relative, other.relative)
        cells += _cells(*best) if all(best) else ["–", "–"]
        _, low, high = gain(*(best if all(best) else (one.seconds, other.seconds)))
        rows.append((
            *(setting["what"], f"{setting['frames']}x{setting['side']}", setting["scheme"]),
            *(setting["precision"], setting["batch"], key.name),
            *(f"{np.median(t.seconds):.4g}" for t in (one, other)),
            *cells, verdict(low, high),
        ))  # fmt: skip
    return format_table(rows) if rows[1:] else ""


def _cells(before: Sequence[float], after: Sequence[float]) -> tuple[str, str]:
    middle, low, high = gain(before, after)
    return f"{middle:.3f}", f"{low:.3f}–{high:.3f}"


def pick(found: Mapping[str, Mapping[Key, Times]], name: str) -> Mapping[Key, Times]:
    """Return the times of a commit.

    Raises:
        UserError: there are none.
    """
    commit = history.full_commit(name)
    matching = [key for key in found if key == commit or (name and key.startswith(name))]
    exact = [key for key in matching if key.endswith("-dirty") == name.endswith("-dirty")]
    if len(exact) != 1:
        known = ", ".join(dict.fromkeys(_short(key) for key in found)) or "none"
        raise UserError(f"{name}: not one commit that was measured ({known})")
    return found[exact[0]]


def _short(commit: str) -> str:
    base, dirty, _ = commit.partition("-dirty")
    return base[:9] + dirty


def draw(found: Mapping[str, Mapping[Key, Times]], path: Path) -> None:
    """Draw seconds over those of the skeleton, commit by commit, a panel a setting."""
    from timesformer.visualization.style import COLOURS, FAINT, GRID, blank_figure, write_png

    kinds = list(dict.fromkeys((k.machine, k.setting) for keys in found.values() for k in keys))
    kinds = [k for k in kinds if any(t.relative for t in _row(found, k))]
    if not kinds:
        raise UserError("--plot: nothing was measured beside its skeleton")
    columns = min(3, len(kinds))
    height = -(-len(kinds) // columns)
    figure = blank_figure(4.6 * columns, 0.5 + 2.9 * height)
    axes = figure.subplots(height, columns, squeeze=False, sharex=True).flatten()
    for panel in axes[len(kinds) :]:
        panel.axis("off")
    commits = list(found)
    for panel, (machine, setting) in zip(axes, kinds, strict=False):
        for colour, name in zip(COLOURS, OURS.values(), strict=False):
            key = Key(machine, setting, name)
            points = [(i, found[c][key].relative) for i, c in enumerate(commits) if key in found[c]]
            points = [(i, values) for i, values in points if values]
            if not points:
                continue
            middles = [float(np.median(values)) for _, values in points]
            low, high = ([abs(f(v) - m) for (_, v), m in zip(points, middles, strict=True)]
                         for f in (min, max))  # fmt: skip
            panel.errorbar(
                [i for i, _ in points], middles, yerr=[low, high], color=colour, marker="o",
                markersize=4, linewidth=1.2, capsize=3, label=name,
            )  # fmt: skip
        s, m = json.loads(setting), json.loads(machine)
        where = f"{m['device']}, {m['threads']} thr." if m["clock"] == "cpu" else m["device"]
        panel.set_title(
            f"{s['what']}, {s['scheme']}\n{s['frames']}×{s['side']}², {s['precision']}, "
            f"batch {s['batch']}: {where}",
            fontsize=8,
        )
        panel.axhline(1, color=FAINT, linewidth=0.8, linestyle=":")
        panel.set_ylim(bottom=0)
        panel.grid(color=GRID, linewidth=0.6)
        panel.set_xticks(range(len(commits)), [_short(c) for c in commits], rotation=45, fontsize=7)
        panel.set_xlim(-0.5, len(commits) - 0.5)
        panel.tick_params(labelsize=7)
    axes[0].legend(fontsize=7, frameon=False)
    figure.supylabel("seconds over those of the matrix products alone", fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, figure)


def _row(found: Mapping[str, Mapping[Key, Times]], kind: tuple[str, str]) -> list[Times]:
    return [t for keys in found.values() for k, t in keys.items() if (k.machine, k.setting) == kind]


def main(argv: Sequence[str] | None = None) -> None:
    """Compare two commits, or draw all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commits", nargs="*", metavar="A B")
    parser.add_argument("--history", type=Path, default=history.HISTORY, metavar="FILE")
    parser.add_argument("--plot", type=png_path, metavar="PNG", help="draw the history")
    args = parser.parse_args(argv)
    if len(args.commits) not in (0, 2) or not (args.commits or args.plot):
        parser.error("two commits to compare, or --plot PNG")
    found = times_of(history.read(args.history))
    if args.commits:
        before, after = (pick(found, name) for name in args.commits)
        table = comparison(before, after)
        if not table:
            raise UserError(
                f"{' and '.join(args.commits)}: nothing was measured of both on one machine, with "
                "the same threads and setting: run benchmarks/model.py on both"
            )
        print(f"{args.commits[1]} against {args.commits[0]}\n{table}")
    if args.plot:
        draw(found, args.plot)
        print(f"drawn: {args.plot}", file=sys.stderr)


if __name__ == "__main__":
    run_tool(main)
