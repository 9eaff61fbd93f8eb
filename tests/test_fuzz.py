"""Short runs of `make fuzz` and `make chaos`: nothing crashes, and nothing is wrong without a word."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rows import slow

FUZZ = Path(__file__).parents[1] / "fuzz"
OWN = ["cohort.json", "prepared case", "weights"]
FURTHER = ["anatomy", "clock of a plan"]


@slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="expected a system with fork")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("fuzz.py --seconds 20 --seed 7", ["NIfTI", "recipe"]),
        # files changed in structure, with their checksums made anew
        ("fuzz.py --own --further --seconds 90 --seed 8", [*OWN, "naive baselines", *FURTHER]),
        ("chaos.py --only prepare --tries 1 --seed 3 --files FILES", ["1 tries: 1 × same bits"]),
    ],
)
def test_mutated_files_and_disturbed_commands_end_right_or_in_one_sentence(words, said, tmp_path):
    program, *options = words.replace("FILES", str(tmp_path)).split()
    command = [sys.executable, str(FUZZ / program), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for text in said:
        assert text in done.stdout
