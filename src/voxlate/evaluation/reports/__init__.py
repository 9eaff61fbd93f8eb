"""Offline HTML pages about runs, syntheses and comparisons.

This folder neither computes scores nor runs models.
"""
