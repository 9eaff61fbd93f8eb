"""Volumes and their files, grids, intensity maps, masks, registration, tiles and similarity.

Nothing here imports torch, or knows a cohort.
"""
