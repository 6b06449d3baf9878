"""Training on a cluster of parameter servers and workers (Section 3.3)."""
