"""Scans: volumes, grids, masks, registration, file formats, cohorts with their splits, and their preparation.

Nothing here judges a scan (`checks`), draws one (`anatomy`), or knows a model.
"""
