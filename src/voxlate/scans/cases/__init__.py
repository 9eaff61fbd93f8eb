"""Prepared cases: a grid each, checked, with masks, statistics and the naive baselines."""
