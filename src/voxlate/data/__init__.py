"""Cohorts: found, prepared, read."""
