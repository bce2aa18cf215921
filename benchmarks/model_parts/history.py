"""Lines of history.jsonl: what was measured of which commit, on which machine."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from timesformer.config.node import CfgNode
from timesformer.engine.provenance import environment
from timesformer.utils.errors import UserError
from timesformer.utils.files import append_line

ROOT = Path(__file__).resolve().parents[2]
HISTORY = ROOT / "benchmarks" / "history.jsonl"
SIGNIFICANT = 5  # digits of a number in a line


def conditions(cfg: CfgNode, device: torch.device) -> dict[str, Any]:
    """Return the commit, the machine and the versions that a measurement is of."""
    facts = environment(cfg)
    git = facts["git"] or {"commit": "unknown", "dirty": False}
    cuda = device.type == "cuda"
    with suppress(PackageNotFoundError):
        facts["packages"]["transformers"] = version("transformers")
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": git["commit"],
        "dirty": git["dirty"],
        "machine": {
            "device": torch.cuda.get_device_name(device) if cuda else facts["cpu"],
            "cores": facts["cores"],
            "threads": facts["threads"],
            "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        },
        "python": facts["python"],
        "packages": {k: facts["packages"].get(k) for k in ("torch", "transformers")},
        "cuda": facts["cuda"],
    }


def label(line: Mapping[str, Any]) -> str:
    """Return what a line's state of the code is called."""
    return f"{line['commit'][:9]}{'-dirty' if line['dirty'] else ''}"


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Add a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    append_line(path, json.dumps(_rounded(line), separators=(",", ":")))


def read(path: Path) -> list[dict[str, Any]]:
    """Return all lines.

    Raises:
        UserError: it can't be read, or a line isn't one of model.py.
    """
    lines = []
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from error
    for number, words in enumerate(text.splitlines(), 1):
        try:
            line = json.loads(words)
            if not {"commit", "dirty", "machine", "setting", "results"} <= line.keys():
                raise ValueError("keys are missing")
        except (ValueError, AttributeError) as error:
            raise UserError(f"{path}:{number}: not a line of model.py ({error})") from error
        lines.append(line)
    return lines


def full_commit(name: str) -> str:
    """Return what the name of a commit stands for; itself where git doesn't know it."""
    base, dirty, _ = name.partition("-dirty")
    words = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{base}^{{commit}}"]
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True)
        base = done.stdout.strip()
    return base + dirty


def _rounded(value: Any) -> Any:
    """Return JSON data whose fractions have as many digits as mean something."""
    if isinstance(value, float):
        return float(f"{value:.{SIGNIFICANT}g}")
    if isinstance(value, Mapping):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list | tuple) else value
