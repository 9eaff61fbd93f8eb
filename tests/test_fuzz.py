"""A short run of the fuzzer: nothing crashes, and nothing is wrong without a word."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_mutated_files_are_read_right_or_refused_in_one_sentence() -> None:
    script = Path(__file__).parents[1] / "fuzz" / "fuzz.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), "--seconds", "5", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "recipe" in done.stdout


@pytest.mark.slow
def test_files_changed_in_structure_with_their_checksums_made_anew_are_refused_or_give_finite_results() -> (
    None
):
    script = Path(__file__).parents[1] / "fuzz" / "fuzz.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), "--own", "--further", "--seconds", "90", "--seed", "8"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:]
    further = (
        "anatomy",
        "plan.json",
        "state, muon",
        "calibration of samples",
        "latents",
        "part of a calibration",
    )
    for kind in further:
        assert kind in done.stdout
    for kind in (
        "cohort.json",
        "prepared case",
        "weights",
        "metrics.json",
        "calibration",
        "naive baselines",
        "state",
    ):
        assert kind in done.stdout
