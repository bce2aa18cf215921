"""Build the package, install it away from the checkout, and run every command there.

python tests/packaging/check_package.py

It asks no network: the wheel goes into a fresh environment that borrows torch and the others from
the one that runs this. `.ci/run` runs it; it takes about a minute.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from small_run import small_options  # noqa: E402

RECIPE = "Synthetic/TimeSformer_divST_8_64"


def main() -> None:
    """Build, compare, install, run; the first thing that is wrong ends it."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        wheel = build(work)
        Installed(wheel, work).check()
    print(f"the package is fine ({time.perf_counter() - start:.0f} s)")


def build(work: Path) -> Path:
    """Build sdist and wheel of a copy of the checkout, and check what is in them."""
    tree = work / "tree"
    shutil.copytree(ROOT, tree, ignore=left_out, symlinks=True)
    files = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}
    command = [sys.executable, "-m", "build", "--no-isolation"]
    sh([*command, "--outdir", str(work / "dist"), str(tree)], work)  # the wheel is of the sdist
    sh([*command, "--wheel", "--outdir", str(work / "direct"), str(tree)], work)
    (sdist,), (wheel,) = (work / "dist").glob("*.tar.gz"), (work / "dist").glob("*.whl")
    (direct,) = (work / "direct").glob("*.whl")

    with tarfile.open(sdist) as archive:
        packed = {m.name.partition("/")[2] for m in archive if m.isfile()}
    expect(files <= packed, f"the sdist lacks {sorted(files - packed)}")
    found, other = unzip(wheel), unzip(direct)
    differing = {name for name in found.keys() | other.keys() if found.get(name) != other.get(name)}
    expect(not differing, f"wheels of the sdist and of the tree differ in {sorted(differing)}")
    wanted = {f for f in files if f.startswith("timesformer/")}
    wanted |= {f"timesformer/{f}" for f in files if f.startswith("configs/")}
    held = {name for name in found if ".dist-info/" not in name}
    expect(held == wanted, f"the wheel differs from the tree in {sorted(held ^ wanted)}")
    expect("timesformer/py.typed" in held, "the wheel lacks py.typed")
    print(f"{sdist.name}: {len(packed)} files; {wheel.name}: {len(found)} files", flush=True)
    return wheel


def left_out(folder: str, names: list[str]) -> set[str]:
    """Return which of a folder's names aren't the project's: what .gitignore says, and git's own.

    Its lines are names or patterns; those with a slash in front are of the checkout's own folder.
    """
    lines = (ROOT / ".gitignore").read_text().split()
    everywhere = shutil.ignore_patterns(*(n.rstrip("/") for n in lines if n[0] != "/"))
    here = {n.strip("/") for n in lines if n[0] == "/"} | {".git"}
    return everywhere(folder, names) | (here if Path(folder) == ROOT else set())


class Installed:
    """A wheel in an environment of its own.

    Args:
        wheel: the file.
        work: a folder away from the checkout.
    """

    def __init__(self, wheel: Path, work: Path) -> None:
        self.version = wheel.name.split("-")[1]
        self.home = work / "away"
        self.home.mkdir()
        environment = work / "environment"
        sh([sys.executable, "-m", "venv", "--without-pip", str(environment)], self.home)
        self.bin = environment / "bin"
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        pip += ["--python", str(self.bin / "python"), "install", "--quiet"]
        sh([*pip, "--no-deps", "--no-index", str(wheel)], self.home)
        # Only now, or pip would find the package of this environment. Its own .pth files, which
        # may lead to the checkout, aren't read from there.
        (site,) = environment.glob("lib/python*/site-packages")
        borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (site / "borrowed.pth").write_text("".join(f"{path}\n" for path in sorted(borrowed)))
        self.site = site
        self.ran: set[str] = set()

    def check(self) -> None:
        """Import the package and run every command that `timesformer --help` names."""
        where = self.sh("python", "-c", "import timesformer; print(timesformer.__file__)")
        expect(Path(where.strip()).is_relative_to(self.site), f"imported from {where}")
        for words in (["timesformer"], ["python", "-m", "timesformer"]):
            said = self.sh(*words, "--version")
            expect(said == f"timesformer {self.version}\n", f"--version says {said}")
        self.check_data()
        self.check_runs()
        self.check_models()
        commands = set(re.findall(r"^  ([a-z-]+) ", self.sh("timesformer", "--help"), re.M))
        for command in sorted(commands - self.ran):
            self.sh("timesformer", command, "--help")
        expect(self.ran <= commands, f"commands that --help lacks: {sorted(self.ran - commands)}")

    def check_data(self) -> None:
        """Recipes and data, also in processes of their own."""
        said = self.run("recipes", "synthetic")
        expect(f"{RECIPE} " in said, "the recipe isn't listed")
        said = self.run("keys", "embed_dim")
        expect("TIMESFORMER.EMBED_DIM 768" in said, "the key isn't listed")
        sizes = ["--train", "24", "--val", "6", "--test", "12"]
        one = ["--processes", "1", *sizes]
        self.run("make-synthetic", "--output", "data", *one, leaves=["data/train.csv"])
        recipe = ["--cfg", RECIPE, "--workers", "1", "--output"]  # one more process than this
        pairs = ["DATA.PATH_TO_DATA_DIR", "data"]
        self.run("check-data", *recipe, "report", *pairs, leaves=["report/data.png"])
        self.run("prepare-data", *recipe, "copies", *pairs, leaves=["copies/train.csv"])

    def check_runs(self) -> None:
        """Train and test apart and together; pictures and a table of both."""
        changes = {"SOLVER__MAX_EPOCH": 1, "NUM_GPUS": 0}

        def words(data: str, output: str) -> list[str]:
            return ["--cfg", RECIPE, *small_options(Path(data), Path(output), **changes)]

        self.run("train", *words("data", "apart"), leaves=["apart/checkpoints"])
        expect(not (self.home / "apart/scores.npz").exists(), "train has tested")
        self.run("test", *words("data", "apart"), leaves=["apart/scores.npz"])
        self.run("run", *words("copies", "together"), leaves=["together/scores.npz"])
        picture = ["--results", "apart/scores.npz", "--output", "clips.png"]
        self.run("plot-predictions", *picture, leaves=["clips.png"])
        said = self.run("compare-runs", "apart", "together", "--plot", "p.png", leaves=["p.png"])
        expect(said.count("divided_space_time") == 2, f"not both runs are in\n{said}")
        video = str(next((self.home / "data/test").rglob("*.mp4")))
        where = ["--checkpoint", "apart", "--out", "where"]
        self.run("explain", video, *where, leaves=["where/contact_sheet.png", "where/maps.npz"])
        words = ["--checkpoint", "apart", "--out", "features", "--workers", "0"]
        pages = [f"features/{name}" for name in ("tsne.png", "index.html", "features.npz")]
        self.run("embed", "apart", *words, leaves=pages)

    def check_models(self) -> None:
        """Weights and costs."""
        (weights,) = (self.home / "apart/checkpoints").glob("checkpoint_epoch_*.pyth")
        said = self.run("inspect-checkpoint", "apart", str(weights))
        expect(said.endswith("equal\n"), f"a run isn't its newest checkpoint\n{said}")
        where = [str(weights), "folder", "--to", "safetensors"]
        self.run("convert", *where, "--num-heads", "3", leaves=["folder/model.safetensors"])
        said = self.run("profile", "--cfg", "Kinetics/TimeSformer_divST_8x32_224")
        expect("121,566,352" in said, f"another model:\n{said}")
        said = self.run("reproduce", "--table", "positions")
        expect("121,566,352" in said, f"another model:\n{said}")

    def run(self, command: str, *words: str, leaves: Sequence[str] = ()) -> str:
        """Run a command of `timesformer`, which leaves these files, and return what it prints."""
        start = time.perf_counter()
        said = self.sh("timesformer", command, *words)
        for name in leaves:
            expect((self.home / name).exists(), f"{command} leaves no {name}; it said\n{said}")
        self.ran.add(command)
        print(f"timesformer {command}: {time.perf_counter() - start:.1f} s", flush=True)
        return said

    def sh(self, program: str, *words: str) -> str:
        """Run a program of the environment in a folder that isn't the checkout."""
        return sh([str(self.bin / program), *words], self.home)


def sh(command: Sequence[str], folder: Path) -> str:
    """Run a program that must succeed, without a PYTHONPATH, and return what it prints."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    expect(done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout


def unzip(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def expect(fact: bool, otherwise: str) -> None:
    """Leave with a message unless something is so."""
    if not fact:
        sys.exit(f"error: {otherwise}")


if __name__ == "__main__":
    main()
