"""Offline HTML pages about runs, syntheses and comparisons. Computes no score."""
