"""Optimizers side by side, on any task."""
