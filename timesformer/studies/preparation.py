"""What must be there before a sweep starts: its data, and the GPUs that its runs ask for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from timesformer.config.validate import check_devices
from timesformer.prepare.claim import claim
from timesformer.prepare.synthetic_writer import MANIFEST, SPLITS
from timesformer.studies.plan import Plan
from timesformer.studies.sweep import visible_gpus
from timesformer.utils.errors import UserError
from timesformer.utils.files import expand_home, is_file, is_folder

WRITTEN_LAST = "classes.txt"  # by make-synthetic


def check_machine(plan: Plan, jobs: int) -> None:
    """Make sure that the runs of a plan can start here.

    Raises:
        UserError: a folder of videos isn't there or isn't named, or there are too few GPUs.
    """
    gpus = max(run.cfg.NUM_GPUS for run in plan.runs.values())
    for run in plan.runs.values():
        folder = run.cfg.DATA.PATH_TO_DATA_DIR
        if not folder:
            raise UserError(
                f"DATA.PATH_TO_DATA_DIR isn't set: add it with the folder of the lists of "
                f"{run.data.title}, e.g. DATA.PATH_TO_DATA_DIR data/{run.data.name} "
                "(docs/datasets.md)"
            )
        if not run.data.generated and not is_folder(expand_home(folder)):
            raise UserError(f"DATA.PATH_TO_DATA_DIR {folder}: no such folder")
        check_devices(run.cfg)
    if jobs > 1 and gpus and jobs * gpus > (found := len(visible_gpus())):
        raise UserError(
            f"--jobs {jobs}: with NUM_GPUS {gpus} that takes {jobs * gpus} GPUs, and {found} are "
            f"here: at most --jobs {max(found // gpus, 1)}"
        )


def make_data(plan: Plan) -> None:
    """Make the Synthetic sets that a plan needs and that aren't there.

    Raises:
        UserError: one can't be made, or there is something else in its folder.
    """
    wanted = {r.cfg.DATA.PATH_TO_DATA_DIR: r.data.make for r in plan.runs.values() if r.data.make}
    for folder, spec in wanted.items():
        complete, manifest = is_file(Path(folder) / WRITTEN_LAST), Path(folder) / MANIFEST
        if complete or is_file(manifest):
            claim(manifest, spec.manifest(), "move it away")
        if complete:
            continue
        print(f"making {folder} (timesformer make-synthetic)", flush=True)
        words = ["--output", folder, "--kind", spec.kind, "--seed", str(spec.seed)]
        sizes = [word for split in SPLITS for word in (f"--{split}", str(getattr(spec, split)))]
        command = [sys.executable, "-m", "timesformer", "make-synthetic", *words, *sizes]
        if subprocess.run(command, check=False).returncode:
            raise UserError(f"{folder}: can't be made; see above")
