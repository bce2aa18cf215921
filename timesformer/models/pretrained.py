"""Loading of weights: the public face of `timesformer.models.weights`."""

from timesformer.models.weights.load import LoadReport, load_pretrained

__all__ = ["LoadReport", "load_pretrained"]
