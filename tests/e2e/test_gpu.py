"""What needs a CUDA device: the same numbers as on the CPU, and runs in every precision."""

from __future__ import annotations

import pytest
import torch
from golden_model import SCHEMES, tiny_model
from golden_recipe import clip_for, fill_
from small_run import RECIPE, run_tool, small_options, stats

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("scheme", SCHEMES)
@torch.no_grad()
def test_logits_equal_those_of_the_cpu(scheme):
    model = fill_(tiny_model(scheme)).eval()
    clip = clip_for("native", (2, 3, 4, 64, 64))
    expected = model(clip)
    torch.testing.assert_close(model.cuda()(clip.cuda()).cpu(), expected, atol=1e-4, rtol=0)
    with torch.autocast("cuda", torch.bfloat16):
        torch.testing.assert_close(model(clip.cuda()).float().cpu(), expected, atol=5e-2, rtol=5e-2)


@pytest.mark.parametrize("amp", ["none", "bf16", "fp16"])
def test_run_net_on_one_gpu(synthetic_dir, tmp_path, amp):
    options = small_options(synthetic_dir, tmp_path, NUM_GPUS=1, TRAIN__AMP=amp, TEST__AMP=amp)
    done = run_tool("run_net.py", "--cfg", str(RECIPE), *options)
    assert done.returncode == 0, done.stderr
    assert stats(tmp_path, "start")[0]["device"] == "cuda:0"
    assert stats(tmp_path, "train_iter")[-1]["mem"] > 0
    assert len(stats(tmp_path, "test_final")) == 1
