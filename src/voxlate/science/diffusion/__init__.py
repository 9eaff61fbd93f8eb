"""Schedules, predictions, loss weights, samplers, windows and noise streams.

Nothing here knows an image file, a network or a recipe: the model is a callable `denoise(x, t) -> x0`.
"""
