"""TimeSformer: space-time attention for video, rebuilt from the paper (arXiv 2102.05095)."""

__version__ = "0.1.0"
