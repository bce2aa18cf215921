"""Weights from anywhere: where they come from, whose names they have, how they are fitted."""
