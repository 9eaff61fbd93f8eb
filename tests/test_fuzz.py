"""A short run of the fuzzer: nothing crashes, and nothing is wrong without a word."""

import os
import subprocess
import sys
from pathlib import Path


def test_mutated_files_are_read_right_or_refused_in_one_sentence() -> None:
    script = Path(__file__).parents[1] / "fuzz" / "fuzz.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), "--seconds", "5", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "recipe" in done.stdout
