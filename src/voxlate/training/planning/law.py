"""The law of error: the predicted error of a planned regression on held-out cases by width, stem, batch and steps.

The law was fitted to 38 trainings on four cohorts (docs/guides/plans.md), whose errors it
reproduces to 9 % (root mean square):

    error = width^-GAIN · (1 + (late / steps)^DECAY)
    late  = LATE · (feature_mm / 2 mm)^COARSE · (32 / width)^NARROW · (4 / batch)^FEW

Only ratios of errors have a meaning, because the difficulty of a cohort is a factor that no choice changes.
"""

GAIN = 0.074
LATE = 42.1
DECAY = 0.643
COARSE = 1.69
NARROW = 0.409
FEW = 0.247


def relative_error(width: int, feature_mm: float, batch: int, steps: float) -> float:
    """Predicted error relative to an unlimited training of width 1; feature_mm: side of a feature after the stem."""
    late = LATE * (feature_mm / 2) ** COARSE * (32 / width) ** NARROW * (4 / batch) ** FEW
    return width**-GAIN * (1 + (late / steps) ** DECAY)
