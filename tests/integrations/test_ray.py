"""Ray Data does the same work, to the same bits."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from small_run import PYTHONPATH, ROOT, small_model

pytest.importorskip("ray", reason="ray isn't installed: the extra `ray`")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("more", [[], ["--stride", "0.1"]], ids=["clips", "windows"])
def test_ray_gives_what_the_core_gives(synthetic_dir, tmp_path, more):
    torch.manual_seed(0)
    small_model(synthetic_dir, tmp_path / "run").save_pretrained(tmp_path / "weights")
    words = [str(synthetic_dir / "test"), str(tmp_path / "weights"), *more]
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "ray_extract.py"), *words],
        env=os.environ | {"PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        timeout=220,
    )
    assert done.returncode == 0, done.stderr
    assert "12 videos by Ray" in done.stdout
    assert done.stdout.rstrip().endswith("equal to the core's: True")
