"""Install carried wheels into a folder of their own, see that all is there, and look at the device.

python benchmarks/gpu_parts/packages.py --wheels .wheels --site DIR --facts FILE

DIR has to be the first of PYTHONPATH. torch, torchvision, numpy and pillow stay the machine's own
where they are new enough for setup.py; nothing outside DIR is changed. FILE tells gpu_check.py of
the device, as JSON. Exits with 1 if a package is missing or can't be imported.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MACHINES_OWN = ("torch", "torchvision", "numpy", "pillow")
# Module that is imported, and the package that brings it.
REQUIRED = {
    "torch": "torch", "torchvision": "torchvision", "numpy": "numpy", "PIL": "pillow",
    "av": "av", "einops": "einops", "fvcore.common.config": "fvcore", "iopath": "iopath",
    "safetensors.torch": "safetensors", "simplejson": "simplejson", "tabulate": "tabulate",
    "timm": "timm", "tqdm": "tqdm", "yacs.config": "yacs", "yaml": "PyYAML", "pytest": "pytest",
    "pytest_timeout": "pytest-timeout",
}  # fmt: skip
OPTIONAL = {"transformers": "transformers"}


def numbers(version: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with: (2, 11, 0) of 2.11.0+cu130."""
    return tuple(map(int, re.findall(r"\d+", version.split("+")[0])[:3]))


def installed(package: str) -> str | None:
    """Return the version of a package that is there, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def is_new_enough(package: str) -> bool:
    """Return whether a package is there in the version that setup.py wants, or a newer one."""
    lowest = re.search(rf'"{package}>=([\d.]+)"', (ROOT / "setup.py").read_text())
    version = installed(package)
    return bool(version and lowest and numbers(version) >= numbers(lowest[1]))


def fits(wheel: str) -> bool:
    """Return whether a wheel is for this Python and processor, by its name."""
    python, abi, where = wheel.removesuffix(".whl").split("-")[-3:]
    if where != "any" and not where.endswith(platform.machine()):
        return False
    this = sys.version_info.minor
    minors = [int(m) for m in re.findall(r"cp3(\d+)", python)]
    return "py3" in python or this in minors or ("abi3" in abi and min(minors, default=99) <= this)


def install(wheels: Path, site: Path) -> int:
    """Install what fits, say what doesn't, and return pip's status."""
    chosen, kept, others = [], [], []
    for path in sorted(wheels.glob("*.whl")):
        name = path.name.split("-")[0].lower()
        if name in MACHINES_OWN and is_new_enough(name):
            kept.append(name)
        else:
            (chosen if fits(path.name) else others).append(path)
    if kept:
        print(f"carried, but the machine's own are in use: {', '.join(kept)}")
    if others:
        names = ", ".join(path.name.split("-")[0] for path in others)
        print(f"carried, but not for Python {platform.python_version()} here: {names}")
    if not chosen:
        print("no wheels to install (`make gpu-wheels` fills .wheels): the machine's own are used")
        return 0
    return subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", "install"),
            *("--quiet", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir"),
            *("--target", str(site), *map(str, chosen)),
        ]
    ).returncode


def try_imports(modules: Mapping[str, str]) -> dict[str, str]:
    """Return what went wrong, by package."""
    wrong = {}
    for module, package in modules.items():
        try:
            importlib.import_module(module)
        except Exception as error:  # of a broken package comes anything
            wrong[package] = f"{type(error).__name__}: {error}"
        else:
            if package in MACHINES_OWN and not is_new_enough(package):
                wrong[package] = f"{installed(package)} is older than setup.py allows"
    return wrong


def tell_origins(site: Path) -> None:
    """Print which packages are used, and where they are from."""
    origins: dict[str, list[str]] = {"the machine's": [], "carried": []}
    for package in (*REQUIRED.values(), *OPTIONAL.values()):
        if version := installed(package):
            place = Path(str(metadata.distribution(package).locate_file(""))).resolve()
            origin = "carried" if place == site.resolve() else "the machine's"
            origins[origin].append(f"{package} {version}")
    for origin, packages in origins.items():
        line = f"{origin}: {', '.join(packages) or 'none'}"
        print(textwrap.fill(line, 100, subsequent_indent="  "))


def versions() -> str:
    """Return versions and processor, fewer of them where packages are missing."""
    try:
        from report import environment
    except Exception:  # the part says what is missing
        found = (f"{name} {installed(name)}" for name in MACHINES_OWN)
        return f"Python {platform.python_version()}, {', '.join(found)}"
    return environment()


def describe() -> dict[str, str]:
    """Return what gpu_check.py has to know: device, its name, why there is none, versions."""
    facts = {"device": "cpu", "name": "cpu", "why": "", "versions": versions()}
    try:
        import torch
    except Exception as error:
        return facts | {"why": f"torch can't be imported: {error}"}
    if not torch.cuda.is_available():
        try:
            torch.cuda.init()
            facts["why"] = "torch finds no CUDA device"
        except Exception as error:
            facts["why"] = str(error).split(". ")[0]  # what follows is advice, and long
        return facts
    properties = torch.cuda.get_device_properties(0)
    nccl = ".".join(map(str, torch.cuda.nccl.version()))
    facts |= {"device": "cuda", "name": properties.name}
    facts["versions"] += (
        f"\n{properties.name}, {properties.total_memory / 2**30:.0f} GiB, capability "
        f"{properties.major}.{properties.minor}, CUDA {torch.version.cuda}, cuDNN "
        f"{torch.backends.cudnn.version()}, NCCL {nccl}; {torch.cuda.device_count()} GPU(s) here"
    )
    return facts


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for option in ("--wheels", "--site", "--facts"):
        parser.add_argument(option, type=Path, required=True)
    args = parser.parse_args()
    status = install(args.wheels, args.site)
    importlib.invalidate_caches()
    wrong, missed = try_imports(REQUIRED), try_imports(OPTIONAL)
    tell_origins(args.site)
    for package, why in missed.items():
        print(f"{package} can't be used, which only the comparison needs: {why}")
    for package, why in wrong.items():
        print(f"{package}: MISSING or broken: {why}")
    facts = describe()
    args.facts.write_text(json.dumps(facts))
    if facts["device"] == "cuda":
        import torch

        print(f"a first sum on {facts['name']}: {torch.ones(3, device='cuda').sum().item():.0f}")
    if status:
        sys.exit(f"pip ended with status {status}")
    if wrong:
        sys.exit(f"not usable: {', '.join(wrong)}; see which wheels are carried")


if __name__ == "__main__":
    main()
