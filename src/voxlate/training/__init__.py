"""The training loop with its log, its state and its weights, for every method alike.

Losses belong into methods, reading of data into data; nothing here knows a network.
"""
