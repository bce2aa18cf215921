"""Run the project's tests that need a GPU, and see that none was left out.

python benchmarks/gpu_parts/gpu_tests.py

Only the files that have such tests are collected: others may need packages that aren't carried.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = (
    *("-m", "gpu", "-v", "--tb=short", "--timeout=100", "-p", "pytest_timeout"),
    *("-p", "no:cacheprovider", "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml")),
)


class Tally:
    """A pytest plugin that counts what became of tests."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test once: skipping and failing are told before its call or in it."""
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.outcome] += 1


def main() -> None:
    """Entry point."""
    files = [p for p in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in p.read_text()]
    tally = Tally()
    status = pytest.main([*OPTIONS, *map(str, sorted(files))], plugins=[tally])
    if status:
        sys.exit(f"pytest ended with status {int(status)}")
    if tally.outcomes["skipped"] or not tally.outcomes["passed"]:
        sys.exit(f"tests were skipped: {dict(tally.outcomes)}")


if __name__ == "__main__":
    main()
