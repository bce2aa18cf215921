"""Try all that needs a GPU and write one report; see gpu_check.sh, which starts this.

Each part is a program of its own with a time limit: whatever one does, the others are tried, and
all end within --minutes. Nothing but the standard library is needed here. Parts print what the
report says of them and exit with 0 if all is well.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from gpu_run import FAILED, PASSED, SKIPPED, Part, Result, adopt_orphans, run, say

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PARTS = HERE / "gpu_parts"
RESERVE = 20.0  # seconds kept for ending a part and writing the report
LEAST = 15.0  # with less time than this a part isn't begun
INTRODUCTION = """\
timesformer re-builds the video transformer TimeSformer in PyTorch. This report is by
benchmarks/gpu_check.sh, which tries on one machine, without internet, all that needs a GPU: are the
numbers right, does training run, does it survive being killed, how fast is the model. A part that
fails doesn't stop the others."""


@dataclass
class Report:
    """The report as far as it is known; on disk too, should this program be ended.

    Attributes:
        path: where to; None until the device is known.
        facts: of the device, see gpu_parts/packages.py.
        results: of the parts so far.
        hidden: paths of this machine that nobody else needs to see, and what stands for them.
    """

    path: Path | None
    hidden: Mapping[str, str]
    facts: Mapping[str, str] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def text(self) -> str:
        """Return the whole."""
        count = {s: sum(r.status == s for r in self.results) for s in (PASSED, FAILED, SKIPPED)}
        device = self.facts.get("name", "unknown device")
        lines = [
            f"GPU check of timesformer on {device}: "
            + ", ".join(f"{number} {status}" for status, number in count.items()),
            "",
            INTRODUCTION,
            "",
            self.facts.get("versions", f"Python {sys.version.split()[0]}"),
        ]
        if why := self.facts.get("why"):
            lines.append(f"No GPU: {why}")
        now = datetime.now(timezone.utc)
        lines += [f"{source()}; {now:%Y-%m-%d %H:%M} UTC", "", *self.overview()]
        for number, result in enumerate(self.results, 1):
            head = f"{number}. {result.part.name}: {result.status}"
            lines += ["", "", head, "-" * len(head), result.part.purpose, ""]
            lines.append(result.text or result.why)
        text = "\n".join(lines) + "\n"
        for path, name in self.hidden.items():
            text = text.replace(path, name)
        return text

    def overview(self) -> list[str]:
        """Return a line for each part."""
        lines = [f"{'part':<24}{'result':<9}{'seconds':>8}{'at most':>9}"]
        for number, result in enumerate(self.results, 1):
            name = f"{number}. {result.part.name}"
            seconds = f"{result.seconds:.0f}" if result.status != SKIPPED else "–"
            line = f"{name:<24}{result.status:<9}{seconds:>8}{result.part.limit:>9.0f}"
            lines.append(f"{line}  {result.why}".rstrip())
        lines.append(f"{'in all':<33}{time.monotonic() - self.begun:>8.0f}")
        return lines

    def add(self, result: Result) -> None:
        """Add a part, say so to whoever waits, and write what there is."""
        self.results.append(result)
        say(f"{result.part.name}: {result.status} after {result.seconds:.0f} s {result.why}")
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(self.text(), encoding="utf-8")


def source() -> str:
    """Return which state of the repository this is."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "commit unknown"
    return f"commit {done.stdout.strip()}" if done.returncode == 0 else "commit unknown"


def script(name: str, *words: str) -> list[str]:
    """Return the command line of a program in gpu_parts/."""
    return [str(PARTS / name), *words]


def first_part(folder: Path, wheels: Path) -> Part:
    """Return the part that finds out about the machine."""
    places = ("--wheels", str(wheels), "--site", str(folder / "site"))
    return Part(
        "packages",
        "All packages are there, carried as wheels or the machine's own, and can be imported.",
        script("packages.py", *places, "--facts", str(folder / "facts.json")),
        90,
    )


def further_parts(folder: Path, device: str) -> list[Part]:
    """Return the others, in order."""
    no_gpu = "" if device == "cuda" else "needs a GPU"
    # The whole is gpu_model.sh; a tiny model on a CPU only shows that the table can be made.
    sizes = ["--precisions", "bf16", "--batch", "1", "8", "32"]
    if device != "cuda":
        sizes = ["--model", "tiny", "--shapes", "4x32", "--rounds", "3", "--square", "256"]
    history = str(folder / "history.jsonl")
    where = ["--device", device]
    places = [*where, "--folder", str(folder)]
    return [
        Part(
            "GPU tests",
            "The project's tests that need a GPU: logits as on the CPU, runs in every precision.",
            script("gpu_tests.py"),
            150,
            no_gpu,
        ),
        Part(
            "golden numbers",
            "A tiny model with known weights gives the numbers that the published code gave.",
            script("golden.py", *where),
            100,
        ),
        Part(
            "training",
            "A tiny model trains on generated videos, started by torchrun; and DDP works.",
            script("training.py", *places),
            100,
        ),
        Part(
            "kill and resume",
            "A training that is killed and started again ends as if nothing had happened.",
            script("resume.py", *places),
            110,
        ),
        Part(
            "throughput",
            "How fast the model is, and how much memory it takes, beside transformers.",
            [
                *(str(HERE / "model.py"), *where, *sizes, "--seconds", "75"),
                *("--schemes", "divided_space_time", "--history", history),
            ],
            110,
        ),
    ]


def environment(site: Path) -> dict[str, str]:
    """Return the variables that parts see: carried packages first, and nothing is to be fetched."""
    before = [
        str(Path(p).absolute()) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p
    ]
    paths = [site, ROOT, ROOT / "tests", HERE, *before]
    # A launcher's variables would make run_net.py wait for other ranks.
    launcher = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
    env = {k: v for k, v in os.environ.items() if k not in launcher}
    return env | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PYTHONUNBUFFERED": "1",  # what a part that hangs has said is in the report
        "OMP_NUM_THREADS": "1",  # these models are too small to share
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # the machine's may be for another pytest
        **dict.fromkeys(("PIP_NO_INDEX", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"), "1"),
    }


def try_part(part: Part, report: Report, end: float, env: Mapping[str, str], folder: Path) -> None:
    """Run a part if it can be, and there is time."""
    left = end - time.monotonic()
    if part.skip:
        report.add(Result(part, SKIPPED, 0, "", part.skip))
    elif left < LEAST:
        report.add(Result(part, SKIPPED, 0, "", "no time left"))
    else:
        say(f"{part.name}: at most {min(part.limit, left):.0f} s")
        try:
            report.add(run(part, min(part.limit, left), env, folder, ROOT))
        except (SystemExit, KeyboardInterrupt):
            report.add(Result(part, FAILED, 0, "", "ended from outside"))
            raise


def check(args: argparse.Namespace, report: Report, folder: Path) -> None:
    """Try everything."""
    end = report.begun + 60 * args.minutes - RESERVE
    site = folder / "site"
    site.mkdir()
    env = environment(site)
    try_part(first_part(folder, args.wheels.absolute()), report, end, env, folder)
    try:
        report.facts = json.loads((folder / "facts.json").read_text())
    except (OSError, ValueError):
        report.facts = {"name": "cpu", "why": "the first part didn't get as far as looking for one"}
    name = re.sub(r"\W+", "_", report.facts["name"].lower()).strip("_")
    report.path = args.output or HERE / "results" / f"gpu_check_{name}.txt"
    for part in further_parts(folder, report.facts.get("device", "cpu")):
        try_part(part, report, end, env, folder)


def stop(signum: int, frame: object) -> None:
    """End as if by an exception, so that `finally` is obeyed; once, as `timeout` says it twice."""
    signal.signal(signum, signal.SIG_IGN)
    sys.exit("gpu_check: told to stop")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="of the report")
    parser.add_argument("--wheels", type=Path, default=ROOT / ".wheels", metavar="DIR")
    parser.add_argument("--minutes", type=float, default=8.75, metavar="M", help="in all (8.75)")
    args = parser.parse_args(argv)
    if args.output:
        try:  # before nine minutes of work whose report would have no place
            args.output.parent.mkdir(parents=True, exist_ok=True)
            args.output.touch()
        except OSError as error:
            parser.error(f"--output {args.output}: can't be written: {error.strerror}")
    signal.signal(signal.SIGTERM, stop)
    adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="gpu_check_") as folder:
        hidden = {folder: "TMP", str(ROOT): ".", sys.prefix: "PYTHON", sys.base_prefix: "PYTHON"}
        report = Report(args.output, hidden)
        try:
            check(args, report, Path(folder))
        finally:  # also when it is ended from outside
            print(report.text(), flush=True)
            say(f"the report is in {report.path}")
    return 1 if any(result.status == FAILED for result in report.results) else 0


if __name__ == "__main__":
    sys.exit(main())
