"""The training loop of all methods, with its log, state and weights.

Losses are in methods/, and the reading of cases is in data/.
"""
