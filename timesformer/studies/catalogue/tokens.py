"""Longer clips and larger frames: accuracy and cost (Figures 3 and 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from timesformer.studies.catalogue.schemes import DIVIDED
from timesformer.studies.registry import register_study
from timesformer.studies.study import Data, Study, Variant

SCHEMES = {"divided": "divided_space_time", "joint": "joint_space_time"}
GENERATED_CLIPS = ((1, 8), (2, 4), (4, 2), (8, 1))  # a video has 8 frames
# Frames of a clip and DATA.SAMPLING_RATE. All clips span the same time, but for the paper's 96×4.
CLIPS: Mapping[str, Sequence[tuple[int, int]]] = {
    "static": GENERATED_CLIPS,
    "temporal": GENERATED_CLIPS,
    "kinetics": ((8, 32), (16, 16), (32, 8), (64, 4), (96, 4)),
    "ssv2": ((8, 32), (16, 32), (32, 32), (64, 32)),  # the rate plays no part
}
SIDES = (224, 336, 448, 560)
GENERATED_SIDES = (32, 48, 64, 96)  # videos are 48 pixels high
# The paper couldn't train joint attention from 32 frames or 448 pixels on: out of memory.
JOINT_FRAMES, JOINT_SIDE = 32, 448
# Of the figure's numbers only these stand in the text, and as accuracies of three crops.
LONG = {("kinetics", 8): DIVIDED["K400"], ("kinetics", 96): 80.7, ("ssv2", 8): DIVIDED["SSv2"]}


@register_study("frames")
def frames() -> Study:
    """Top-1 and cost over the number of frames of a clip (Figures 3 and 5)."""
    return Study(
        "Frames of a clip", _lengths, x_label="frames", x_log=True, costs=True,
        source="TimeSformer, Table 3",
    )  # fmt: skip


@register_study("resolution")
def resolution() -> Study:
    """Top-1 and cost over the side of a frame (Figures 3 and 5)."""
    return Study("Size of a frame", _sides, x_label="side of the crop, pixels", costs=True)


def _lengths(data: Data) -> list[Variant]:
    return [
        Variant(
            "",
            data.with_keys(
                {
                    "TIMESFORMER.ATTENTION_TYPE": scheme,
                    "DATA.NUM_FRAMES": number,
                    "DATA.SAMPLING_RATE": rate,
                }
            ),
            x=number,
            series=series,
            paper=LONG.get((data.name, number)) if series == "divided" else None,
        )
        for series, scheme in SCHEMES.items()
        for number, rate in CLIPS[data.name]
        if data.generated or series == "divided" or number < JOINT_FRAMES
    ]


def _sides(data: Data) -> list[Variant]:
    sides = GENERATED_SIDES if data.generated else SIDES
    return [
        Variant(
            "",
            data.with_keys(
                {
                    "TIMESFORMER.ATTENTION_TYPE": scheme,
                    "DATA.TRAIN_JITTER_SCALES": str(_jitter(data, side)).replace(" ", ""),
                    "DATA.TRAIN_CROP_SIZE": side,
                    "DATA.TEST_CROP_SIZE": side,
                }
            ),
            x=side,
            series=series,
        )
        for series, scheme in SCHEMES.items()
        for side in sides
        if data.generated or series == "divided" or side < JOINT_SIDE
    ]


def _jitter(data: Data, side: int) -> Sequence[int]:
    """Return DATA.TRAIN_JITTER_SCALES in the proportion that the data's recipe has to its crop."""
    low, high = (1.0, 1.0) if data.generated else (256 / 224, 320 / 224)
    return [round(low * side), round(high * side)]
