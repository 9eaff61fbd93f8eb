"""Scores of syntheses against the truth, and their tables.

This folder neither runs models nor writes pages.
"""
