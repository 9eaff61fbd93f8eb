"""Planning of a recipe for a prepared cohort: facts, rules that turn them into settings with reasons, and a probe.

This folder does not train, and has no rules for cohorts by name. A plan is an ordinary recipe.
"""
