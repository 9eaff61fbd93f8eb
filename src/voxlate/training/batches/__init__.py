"""Batches of a prepared cohort in network units, by the seed and the step."""
