"""From a recipe and a prepared cohort to a run: the loop, its log, its state and its weights."""
