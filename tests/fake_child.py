"""A run that trains nothing, see fake_runs.py; it imports nothing that takes time.

It adds a line to a log when it starts and when it ends, and leaves the line of a test.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

LOG, LINES, SECONDS, FAILING = "FAKE_LOG", "FAKE_LINES", "FAKE_SECONDS", "FAKE_FAILING"


def main() -> None:
    folder = Path(sys.argv[sys.argv.index("OUTPUT_DIR") + 1])
    note("start", folder)
    print("thinking", flush=True)
    time.sleep(float(os.environ[SECONDS]))
    if (failing := os.environ.get(FAILING)) and failing in folder.name:
        print("error: there are no videos\nsome noise")
        sys.exit(2)
    line = json.loads(Path(os.environ[LINES]).read_text())[str(folder)]
    with (folder / "stats.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    note("end", folder)


def note(what: str, folder: Path) -> None:
    with Path(os.environ[LOG]).open("a") as log:
        log.write(f"{what} {folder.name} {os.getpid()}\n")


if __name__ == "__main__":
    main()
