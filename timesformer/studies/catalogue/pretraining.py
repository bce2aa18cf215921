"""What image weights are worth (Table 3; from scratch: §4.2)."""

from __future__ import annotations

from timesformer.studies.registry import register_study
from timesformer.studies.study import Data, Recipe, Study, Variant

# Nothing, and time_embed as the published release starts it.
SCRATCH = {"TIMESFORMER.PRETRAINED_MODEL": "", "TIMESFORMER.INIT": "scratch"}
AS_PUBLISHED = {"TIMESFORMER.TIME_EMBED_AMPLITUDE": -1.0}


@register_study("pretraining")
def pretraining() -> Study:
    """Top-1 from scratch and from image models (Table 3)."""
    source = "TimeSformer, Table 3 (from scratch: §4.2)"
    return Study("Pretraining on images", _variants, source=source)


def _variants(data: Data) -> list[Variant]:
    return _of_frames(data) if data.generated else _of_imagenet(data)


def _of_frames(data: Data) -> list[Variant]:
    paper = {"K400": (64.8, 78.0), "SSv2": (None, 59.5)}[data.paper]
    return [
        Variant("none", data.with_keys({**AS_PUBLISHED, **SCRATCH}), paper=paper[0]),
        Variant("images", data.with_keys({}), paper=paper[1]),
        Variant("images, time_embed 0", data.with_keys(AS_PUBLISHED)),
    ]


def _of_imagenet(data: Data) -> list[Variant]:
    """Return starts at full size; the paper doesn't say which of the two of 21K it means."""
    none, small, large = {"K400": (64.8, 75.8, 78.0), "SSv2": (None, 59.5, 59.5)}[data.paper]
    scratch = [Variant("none", Recipe(f"{data.recipe}_scratch"), paper=none)] if none else []
    return [
        *scratch,
        Variant("ImageNet-1K", Recipe(f"{data.recipe}_IN1K"), paper=small),
        Variant("ImageNet-21K", Recipe(f"{data.recipe}_IN21K"), paper=large),
        Variant("21K, then 1K", data.with_keys({}), paper=large),
    ]
