"""Which frames make a clip, and which pixels: arithmetic and tensors, no files."""
