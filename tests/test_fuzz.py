"""Short runs of the fuzzer: nothing crashes, and nothing is wrong without a word."""

import subprocess
import sys
from pathlib import Path

import pytest

from rows import slow

FUZZ = Path(__file__).parents[1] / "fuzz" / "fuzz.py"
OWN = ["cohort.json", "prepared case", "weights", "metrics.json", "calibration"]
FURTHER = ["anatomy", "clock of a plan", "calibration of samples"]


@slow
@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        ("--seconds 20 --seed 7", ["NIfTI", "recipe"]),
        # files changed in structure, with their checksums made anew
        ("--own --further --seconds 90 --seed 8", [*OWN, "naive baselines", *FURTHER]),
    ],
)
def test_mutated_files_are_read_right_or_refused_in_one_sentence(words, kinds):
    command = [sys.executable, str(FUZZ), *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:]
    for kind in kinds:
        assert kind in done.stdout
