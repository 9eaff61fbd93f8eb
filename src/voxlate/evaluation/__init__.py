"""Evaluation: scores against the truth, paired tests, the fitting of intervals, and reports.

Nothing here trains a network, or writes an image.
"""
