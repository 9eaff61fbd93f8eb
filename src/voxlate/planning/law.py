"""What width, stem, batch and steps of a planned regression are worth: its predicted error on held-out cases.

The law was fitted to 38 trainings on four cohorts (benchmarks/law.py; its rows are in law.jsonl), whose errors it
reproduces to 9 % (root mean square):

    error = width^-GAIN · (1 + (late / steps)^DECAY)
    late  = LATE · (feature_mm / 2 mm)^COARSE · (32 / width)^NARROW · (4 / batch)^FEW

Only ratios mean something: a cohort's own difficulty is a factor that no choice changes.
"""

GAIN = 0.074
LATE, DECAY = 42.1, 0.643
COARSE, NARROW, FEW = 1.69, 0.409, 0.247


def relative_error(width: int, feature_mm: float, batch: int, steps: float) -> float:
    """Predicted error, over that of an unlimited training of width 1; feature_mm: side of a feature after the stem."""
    late = LATE * (feature_mm / 2) ** COARSE * (32 / width) ** NARROW * (4 / batch) ** FEW
    return width**-GAIN * (1 + (late / steps) ** DECAY)
