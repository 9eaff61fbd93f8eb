"""Volumes, files, grids, intensities and masks: knows no learning."""
