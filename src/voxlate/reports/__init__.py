"""Offline HTML pages about runs, syntheses and comparisons.

Nothing here computes a score or runs a model.
"""
