"""Scores of syntheses against the truth, their tables, and paired tests between methods.

This folder neither runs models nor writes pages.
"""
