"""Tasks, which pose batches as problems, and methods, which learn to solve them.

Reading of data and the training loop belong elsewhere; nothing here knows a file.
"""
