"""Weights that others published, as modules and runs of ours."""
