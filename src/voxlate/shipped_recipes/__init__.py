"""The recipes that come with the package, and how their text becomes tables.

Nothing here knows what a key means: that is checked by voxlate.recipe.
"""
