"""benchmarks/gpu_check.py: parts that fail or hang are told, leave nothing, and stop no other."""

from __future__ import annotations

import platform
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import ROOT

BENCHMARKS = ROOT / "benchmarks"
# In a process of its own, because it kills whatever its process has started.
PROGRAM = f"""
import sys
sys.path.insert(0, {str(BENCHMARKS)!r})
import gpu_check
from gpu_run import Part

def part(name, code, limit=20, skip=""):
    return Part(name, "It tries.", ["-c", code], limit, skip)

HANG = '''
import subprocess, sys, time
words = [sys.executable, "-c", "import time; time.sleep(60)"]
child = subprocess.Popen(words, start_new_session=True)
print("child", child.pid, flush=True)
time.sleep(60)
'''
def parts(folder, device):
    yield part("broken", "import sys; print('said'); sys.exit('the reason')")
    yield part("hangs", HANG, 3)
    yield part("lacking", "print('never')", skip="needs a GPU")
    yield part("quick", "")
    gpu_check.LEAST = 1e9
    yield part("too late", "print('never')")

gpu_check.first_part = lambda folder, _: part("fine", f"print('all is well in {{folder}}')")
gpu_check.further_parts = parts
sys.exit(gpu_check.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, str]:
    """Status, stdout and file of a check of parts that fail in all ways."""
    output = tmp_path_factory.mktemp("check") / "new" / "report.txt"
    words = [sys.executable, "-c", PROGRAM, "--output", str(output), "--minutes", "1"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, output.read_text()


def test_every_part_is_told(outcome):
    status, report, file = outcome
    assert status == 1
    # The seconds of the whole go on between the two.
    assert file.splitlines()[0] == report.splitlines()[0]
    assert ": 2 passed, 2 FAILED, 2 skipped" in report.splitlines()[0]
    for line in (
        r"1\. fine +passed",
        r"2\. broken +FAILED .* status 1",
        r"3\. hangs +FAILED .* stopped after 3 s",
        r"4\. lacking +skipped .* needs a GPU",
        r"5\. quick +passed",
        r"6\. too late +skipped .* no time left",
    ):
        assert re.search(f"^{line}", report, re.MULTILINE), line


def test_what_a_failing_part_said_is_in_the_report(outcome):
    _, report, file = outcome
    for text in (report, file):
        assert "said\nFAILED (status 1); the last lines of its errors:\nthe reason" in text
    assert "never" not in report


def test_paths_of_the_machine_are_not(outcome):
    assert "all is well in TMP" in outcome[1]


def test_a_part_that_hangs_leaves_no_process(outcome):
    pid = next(line.split()[1] for line in outcome[1].splitlines() if line.startswith("child "))
    status = Path("/proc", pid, "stat")
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize(
    ("wheel", "fitting"),
    [
        ("timm-1.0-py3-none-any.whl", True),
        ("six-1.0-py2.py3-none-any.whl", True),
        ("av-18.1.0-cp39-abi3-manylinux_2_28_MACHINE.whl", True),
        ("av-18.1.0-cp399-abi3-manylinux_2_28_MACHINE.whl", False),
        ("regex-1.0-cpTHIS-cpTHIS-manylinux2014_MACHINE.manylinux_2_17_MACHINE.whl", True),
        ("regex-1.0-cp399-cp399-manylinux2014_MACHINE.whl", False),
        ("regex-1.0-cpTHIS-cpTHIS-manylinux2014_other.whl", False),
    ],
)
def test_wheels_for_this_machine(wheel, fitting):
    fits = runpy.run_path(str(BENCHMARKS / "gpu_parts" / "packages.py"))["fits"]
    this = f"3{sys.version_info.minor}"
    assert fits(wheel.replace("MACHINE", platform.machine()).replace("THIS", this)) is fitting
