"""Where a run's numbers come from: code, packages, machine, lists and weights.

Each start of a training or a test adds an entry to OUTPUT_DIR/environment.json. Nothing of the
environment's variables is in it but the number of a SLURM job.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode

from timesformer import __version__
from timesformer.engine.results import name_before
from timesformer.utils.distributed import device_for, gather_objects, get_world, is_main
from timesformer.utils.files import write_text
from timesformer.utils.logging import get_logger
from timesformer.utils.processes import cores
from timesformer.utils.processor import processor_name

logger = get_logger(__name__)

NAME = "environment.json"
PACKAGES = ("torchvision", "timm", "av", "numpy", "torchcodec")
_PACKAGE = Path(__file__).resolve().parents[1]


def record(cfg: CfgNode, what: str, **facts: Any) -> dict[str, Any]:
    """Add an entry to the run's environment.json, and return it; ranks do this together.

    Args:
        cfg: the config.
        what: train or test.
        **facts: what is known of this start, e.g. digests of its lists.
    """
    entry = {
        "started": datetime.now(timezone.utc).isoformat(),
        "what": what,
        **environment(cfg),
        **facts,
    }
    if is_main():
        try:
            _append(Path(cfg.OUTPUT_DIR) / NAME, entry)
        except OSError as error:
            logger.warning("%s/%s: can't be written: %s", cfg.OUTPUT_DIR, NAME, error.strerror)
    return entry


def environment(cfg: CfgNode) -> dict[str, Any]:
    """Return what a run's numbers may depend on, as plain values; ranks do this together."""
    world, device = get_world(), device_for(cfg)
    ranks = gather_objects((platform.node(), _name_of(device)))
    return {
        "version": __version__,
        "git": git_state(_PACKAGE),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {"torch": str(torch.__version__)}
        | {name: found for name in PACKAGES if (found := _version(name))},
        "ffmpeg": _ffmpeg(),
        "cuda": _cuda() if device.type == "cuda" else None,
        "devices": [name for _, name in ranks],
        "cpu": processor_name(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "ranks": world.size,
        "hosts": len({host for host, _ in ranks}),
        "deterministic": cfg.DETERMINISTIC,
        "folder": str(Path.cwd()),
        "command": [without_keys(word) for word in sys.argv],
        "config_sha256": config_digest(cfg),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def without_keys(word: str) -> str:
    """Return a word without what lets somebody in by a URL: name, password, signed query."""
    return re.sub(r"(\w+://)([^/@\s]*@)?([^?\s]*)(\?\S*)?", _address, word)


def _address(found: re.Match[str]) -> str:
    scheme, who, rest, query = found.groups()
    return f"{scheme}{'…@' if who else ''}{rest}{'?…' if query else ''}"


def short(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint says of an entry, the rest of which is found by when it began."""
    names = ("started", "version", "git", "devices", "ranks", "threads", "deterministic")
    return {name: entry[name] for name in names} | {"torch": entry["packages"].get("torch")}


def config_digest(cfg: CfgNode) -> str:
    """Return the SHA-256 of a config's keys, but for the folder that its results go to."""
    said = {key: value for key, value in cfg.leaves() if key not in ("OUTPUT_DIR", "SHARD_ID")}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return commit and dirtiness of the checkout that a folder's files are of; None: of none.

    Where it can't be asked, as git isn't installed, `unknown` says why.
    """
    # This folder's repository counts, whatever one a hook of git or a person has set, and whoever
    # owns it: its code is what runs.
    trusted = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false")
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*words: str) -> str:
        command = ["git", "--no-optional-locks", *trusted, "-C", str(folder), *words]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=20, check=True, env=variables
        )
        return done.stdout.strip()

    if not any((above / ".git").exists() for above in (folder, *folder.parents)):
        return None
    why = "git doesn't answer"
    try:
        if not git("ls-files", "__init__.py"):  # of another project around it
            return None
        changed = git("status", "--porcelain", "--", ".")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except subprocess.CalledProcessError as error:
        why = error.stderr.strip().partition("\n")[0] or why
    except (OSError, subprocess.SubprocessError) as error:
        why = f"git: {error.strerror}" if isinstance(error, OSError) else why
    logger.warning("%s: which commit this is can't be told: %s", folder, why)
    return {"commit": None, "dirty": None, "unknown": why}


def _append(path: Path, entry: Mapping[str, Any]) -> None:
    """Add an entry to the list in a file; what isn't such a list is kept under another name.

    Raises:
        OSError: it can't be read or written.
    """
    entries: list[Any] = []
    if path.exists():
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(entries, list):
                raise ValueError("no list")
        except (ValueError, RecursionError):
            entries, before = [], name_before(path)
            path.replace(before)
            logger.warning("%s isn't what a run writes: it is %s now", path, before.name)
    write_text(path, json.dumps([*entries, entry], indent=1) + "\n")


def entries_of(run: Path) -> list[dict[str, Any]]:
    """Return the entries of a run's environment.json; [] if there is none that can be read."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads((run / NAME).read_text(encoding="utf-8"))
        return [entry for entry in found if isinstance(entry, dict)]
    return []


def _version(package: str) -> str | None:
    with suppress(PackageNotFoundError):
        return version(package)
    return None


def _ffmpeg() -> dict[str, str]:
    """Return the versions of the libraries that decode."""
    import av

    return {name: ".".join(map(str, number)) for name, number in av.library_versions.items()}


def _name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _cuda() -> dict[str, Any]:
    driver = None
    with suppress(OSError):
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
        driver = found[1] if (found := re.search(r"\b(\d+\.\d+(?:\.\d+)?)\b", text)) else None
    return {
        "version": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": driver,
    }
