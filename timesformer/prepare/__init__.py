"""What is done to data before a run: looking at it, making it small, making it up."""
