"""The studies of the papers: what is varied, the runs that takes, and the figure or table of it."""
