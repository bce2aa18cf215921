"""HowTo100M, the long-term task of the paper (Sec. 4.6)."""

from __future__ import annotations

from timesformer.datasets.catalogue.kinetics import Kinetics
from timesformer.datasets.registry import DATASET_REGISTRY


@DATASET_REGISTRY.register()
class HowTo100M(Kinetics):
    """Which of 1059 tasks ("change a tire", …) does a video of several minutes show?

    The classes are the task categories of HowTo100M that have at least 100 videos; about 85K videos
    train and 35K test. Lists are those of Kinetics. One clip of 8, 32, 64 or 96 frames, one in 32,
    covers 8.5, 34.1, 68.3 or 102.4 s, so a test takes 48, 12, 6 or 4 of them that don't overlap:
    DATA.TEST_CLIP_SAMPLING tiled and TEST.NUM_ENSEMBLE_VIEWS in the recipes.
    """
