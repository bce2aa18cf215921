"""Video data sets. Importing the package registers those that come with it."""

from timesformer.datasets import (  # noqa: F401  (they register themselves)
    diving48,
    howto100m,
    kinetics,
    ssv2,
    synthetic,
    video_folder,
)
