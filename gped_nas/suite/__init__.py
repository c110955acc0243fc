"""Grids of evaluations: the same measurement at many settings."""
