"""Runs as jobs of a cluster: submitted, gone on with in the next job, or given up for a reason."""
