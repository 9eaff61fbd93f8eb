"""What width, stem and steps of a planned regression are worth: its predicted error on held-out cases.

The law was fitted to trainings on four cohorts (benchmarks/law.py; docs/plan.md has its table):

    error = width^-GAIN · coarse^COARSE · (1 + (STEPS / steps)^DECAY)

Only ratios mean something: a cohort's own difficulty is a factor that no choice changes.
"""

STEPS, DECAY = 150.0, 0.7
GAIN = 0.10
COARSE = 0.25


def relative_error(width: int, coarse: float, steps: float) -> float:
    """Predicted error over that of an unlimited training of width 1 with the finest features.

    coarse: side of a feature after the stem over the side below which smaller features gain nothing.
    """
    return width**-GAIN * coarse**COARSE * (1 + (STEPS / steps) ** DECAY)
