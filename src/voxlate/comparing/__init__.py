"""Comparison of scored methods by paired tests."""
