"""The vision transformer itself: patches, positions, blocks, head."""
