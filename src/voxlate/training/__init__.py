"""The training loop with its log, its state and its weights, for every method alike.

Losses belong to methods, reading of cases to data.
"""
