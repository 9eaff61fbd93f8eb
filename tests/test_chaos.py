"""A short run of `make chaos` on one command, and proof that it notices faults."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rows import slow

ROOT = Path(__file__).parents[1]
FUZZ = ROOT / "fuzz"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="expected a system with fork")


@slow
def test_disturbed_preparations_end_with_the_bits_of_an_undisturbed_one(tmp_path):
    command = [sys.executable, str(FUZZ / "chaos.py"), "--only", ": prepare"]
    command += ["--tries", "1", "--files", str(tmp_path / "chaos"), "--seed", "3"]
    first = subprocess.run(command, capture_output=True, text=True, timeout=480)
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    log = tmp_path / "chaos" / "tries.jsonl"
    outcomes = [json.loads(line)[1] for line in log.read_text().splitlines()]
    assert len(outcomes) == 4
    assert outcomes.count("same bits") >= 3
