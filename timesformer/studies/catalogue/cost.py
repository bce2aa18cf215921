"""What testing costs: the paper's models on 3 views beside 3D CNNs on 30, counted and measured."""

from __future__ import annotations

from typing import NamedTuple

import torch
from fvcore.common.config import CfgNode
from tqdm import tqdm

from timesformer.config.defaults import get_cfg
from timesformer.models.build import make_model, meta_model, view_shape
from timesformer.models.profiling import count_macs, count_parameters
from timesformer.models.timing import check_memory, time_views
from timesformer.studies.registry import register_table
from timesformer.utils.text import format_table

VIDEOS = 100
PASSES, WITHIN = 5, 60.0  # measured passes of a model, as far as they fit into these seconds


class Tested(NamedTuple):
    """A model, how it is tested, and what the paper says of it.

    Attributes:
        name: what it is called.
        model: registered model.
        frames: of a view.
        side: of a view in pixels.
        trained: side that it was trained at.
        clips: of a test, each three crops.
        tflops: of all views in the paper, in 10¹² multiply-adds.
        hours: V100 hours of training on K400 (Table 2).
        k400: its top-1 with that training.
        test: hours of testing 20,000 videos on 8 V100.
    """

    name: str
    model: str
    frames: int
    side: int
    trained: int
    clips: int
    tflops: str = "–"
    hours: str = "–"
    k400: str = "–"
    test: str = "–"

    def cfg(self) -> CfgNode:
        """Return a config that makes the model."""
        cfg = get_cfg()
        cfg.MODEL.MODEL_NAME, cfg.DATA.NUM_FRAMES = self.model, self.frames
        cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TEST_CROP_SIZE = self.trained, self.side
        return cfg


_VIT = "vit_base_patch16_224"
MODELS = (
    Tested("TimeSformer", _VIT, 8, 224, 224, 1, "0.59", "416", "75.8 / 78.0", "0.6"),
    Tested("TimeSformer-HR", _VIT, 16, 448, 448, 1, "5.11", "–", "77.8 / 79.7", "1.06"),
    Tested("TimeSformer-L", _VIT, 96, 224, 224, 1, "7.14", "–", "78.1 / 80.7", "2.6"),
    Tested("SlowFast R50 8×8", "slowfast_r50", 32, 256, 224, 10, "1.97", "3840", "75.6"),
    Tested("I3D R50 8×8", "i3d_r50", 8, 256, 224, 10, "1.11", "1440", "73.4"),
    Tested("Slow R50 8×8", "slow_r50", 8, 256, 224, 10),
    Tested("X3D-M 16×5", "x3d_m", 16, 256, 224, 10),
)
HEADER = (
    "model", "view", "views", "parameters", "TFLOPs, paper", "ours", "s/view", "CPU s", "passes",
    f"s for {VIDEOS} videos", "V100 hours", "K400", "test hours",
)  # fmt: skip
NOTE = """\
TFLOPs: 10¹² multiply-adds of all views. s/view: seconds of a forward pass of one view in float32,
with fresh weights on noise and without reading videos: the median of so many passes after a warm-up
({where}); times views and {videos}, extrapolated. CPU s: seconds of cores, which don't count what
else a machine does.
The paper's (arXiv 2102.05095): V100 hours of training on K400 and its top-1 (Table 2; TimeSformer
from ImageNet-1K / 21K, Tables 3 and 5; the others from 1K), and hours of testing 20,000 videos on
8 V100 (§4.5). SlowFast took 14.88 hours there: by the words beside it one that costs about what
TimeSformer-L does, and not R50 8×8. What the paper doesn't say is –."""


@register_table("cost")
def cost_table() -> str:
    """Cost of a test, counted and measured here: TimeSformer beside 3D CNNs (Table 2)."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows: list[tuple[str, ...]] = [HEADER]
    where = ""
    for tested in tqdm(MODELS, desc="models", disable=None):
        cells, where = _row(tested, device)
        rows.append(cells)
    return f"{format_table(rows)}\n\n{NOTE.format(where=where, videos=VIDEOS)}"


def _row(tested: Tested, device: str) -> tuple[tuple[str, ...], str]:
    """Return the cells under HEADER, and where they were measured."""
    cfg = tested.cfg()
    view, views, counted = view_shape(cfg), 3 * tested.clips, meta_model(cfg)
    check_memory(counted, view, device=device)
    timing = time_views(
        make_model(cfg), view, repeats=PASSES, within=WITHIN, device=device, desc=tested.name
    )
    return (
        tested.name,
        f"{tested.frames}×{tested.side}²",
        f"{tested.clips}×3",
        f"{count_parameters(counted):,}",
        tested.tflops,
        f"{views * count_macs(counted, view) / 1e12:.2f}",
        f"{timing.seconds:.3g}",
        f"{timing.cpu_seconds:.3g}",
        str(len(timing.passes)),
        f"{VIDEOS * views * timing.seconds:,.0f}",
        tested.hours,
        tested.k400,
        tested.test,
    ), timing.where
