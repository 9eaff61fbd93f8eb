"""How weights are learned: the settings of a training, and its optimisers.

They lie below recipes, which hold them; the loop that follows them belongs to training.
"""
