"""Video data sets. Importing the package registers those that come with it."""

from timesformer.datasets import kinetics  # noqa: F401  (registers itself)
