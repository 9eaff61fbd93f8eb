"""Cohorts: finding, preparing and reading them, and the naive baselines of their training cases.

Scans become network input here and nowhere else; nothing here knows a method or a recipe.
"""
