"""Checks of scans, cohorts, truths and predictions: what is measured, its limits, and the grade of what was found.

Nothing here changes a scan, or knows how a model is trained.
"""
