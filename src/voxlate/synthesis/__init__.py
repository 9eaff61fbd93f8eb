"""Trained models at work: images from scans, case by case, and how likely the true ones are."""
