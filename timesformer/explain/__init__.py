"""From a video file to where a model looks in it, and whether that is where something happens."""
