"""Training: recipes, batches, the loop, weights, the network of a run, starters, and the planning of recipes.

Losses are in `science/methods`; nothing here scores whole images.
"""
