"""Over how many clips of a video a test must average (Figure 6)."""

from __future__ import annotations

from timesformer.studies.registry import register_study
from timesformer.studies.study import Data, Recipe, Study, Variant
from timesformer.utils.errors import UserError

CLIPS = 10
# What a clip is called, its frames and DATA.SAMPLING_RATE.
GENERATED = (("a quarter of the video", 2, 1), ("half of it", 4, 1), ("all of it", 8, 1))
KINETICS = (("TimeSformer, 8×32", 8, 32), ("TimeSformer-L, 96×4", 96, 4))


@register_study("test-clips")
def clips_of_a_test() -> Study:
    """Top-1 over the number of test clips, from one file of scores (Figure 6)."""
    return Study("Number of test clips", _variants, x_label="test clips of a video")


def _variants(data: Data) -> list[Variant]:
    if data.name == "ssv2":
        raise UserError("test-clips: not of ssv2, each of whose clips spans the whole video")
    return [
        Variant("", _tested(data, frames, rate), x=clips, series=name, clips=clips)
        for name, frames, rate in (GENERATED if data.generated else KINETICS)
        for clips in range(1, CLIPS + 1)
    ]


def _tested(data: Data, frames: int, rate: int) -> Recipe:
    """Return a test of many clips of a model that is trained as ever."""
    clip = {"DATA.NUM_FRAMES": frames, "DATA.SAMPLING_RATE": rate}
    many = {
        "TRAIN.ENABLE": False,
        "TEST.CHECKPOINT_FILE_PATH": data.with_keys(clip),
        "TEST.NUM_ENSEMBLE_VIEWS": CLIPS,
        "TEST.NUM_SPATIAL_CROPS": 1,
        "TEST.SAVE_RESULTS_PATH": "scores.npz",
        "DATA.TEST_CLIP_SAMPLING": "uniform",
    }
    return data.with_keys({**clip, **many})
