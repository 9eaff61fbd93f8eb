"""Schedules, predictions, samplers and noise: knows no image and no network."""
