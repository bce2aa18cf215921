"""What all fault campaigns share: long timeouts, small data, and a table at the end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(3600))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    campaign = sys.modules.get("campaign")
    if campaign and campaign.REPORT:
        terminalreporter.section("fault campaigns")
        for line in campaign.REPORT:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def few_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 8 training, 2 validation and 4 test videos: an epoch is one step of 8."""
    from timesformer.prepare.synthetic_writer import SyntheticSpec, write_dataset

    folder = tmp_path_factory.mktemp("few")
    write_dataset(folder, SyntheticSpec(seed=0, train=8, val=2, test=4), processes=1)
    return folder
