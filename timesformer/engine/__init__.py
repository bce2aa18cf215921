"""Training, evaluation and what a run needs to go on."""
