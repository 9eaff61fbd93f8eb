"""Scores of syntheses against the truth, their tables, and paired tests between methods.

Nothing here knows a trained model, or writes a page.
"""
