"""Scores of syntheses against the truth, and the tables and tests made of them: knows no trained model."""
