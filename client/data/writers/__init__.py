"""Masks on their way out: each on the grid of the very files that it belongs to."""
