"""Where a model looks: attention weights, relevance of patches, and how far to believe it."""
