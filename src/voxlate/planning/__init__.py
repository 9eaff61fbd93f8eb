"""From a prepared cohort to a recipe: facts, rules that turn them into settings with a reason each, and a probe.

Nothing here trains or knows a cohort by name: what is decided stands in the plan, an ordinary recipe.
"""
