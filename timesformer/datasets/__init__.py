"""Video data sets. Importing the package registers those that come with it."""

from timesformer.datasets import kinetics, synthetic  # noqa: F401  (they register themselves)
