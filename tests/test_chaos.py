"""A short run of `make chaos` on one command, and proof that it notices faults."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
FUZZ = ROOT / "fuzz"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="expected a system with fork")


@pytest.mark.slow
def test_disturbed_preparations_end_with_the_bits_of_an_undisturbed_one(tmp_path: Path) -> None:
    command = [sys.executable, str(FUZZ / "chaos.py"), "--quick", "--only", ": prepare"]
    command += ["--tries", "1", "--files", str(tmp_path / "chaos"), "--seed", "3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    log = tmp_path / "chaos" / "tries.jsonl"
    outcomes = [json.loads(line)[1] for line in log.read_text().splitlines()]
    assert len(outcomes) == 4
    assert outcomes.count("same bits") >= 3


def test_tries_that_are_done_are_known_again_until_the_seed_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FUZZ))
    from chaos import read_results

    assert read_results(tmp_path, 1) == {}
    (tmp_path / "tries.jsonl").write_text('["a", "same bits"]\n["b", "sa')
    assert read_results(tmp_path, 1) == {"a": "same bits"}
    assert (tmp_path / "tries.jsonl").read_text() == '["a", "same bits"]\n'
    assert read_results(tmp_path, 2) == {}


def test_the_comparison_ignores_the_clock_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FUZZ))
    from scenarios import differences

    one, other = tmp_path / "one", tmp_path / "other"
    for folder, seconds in ((one, 1.5), (other, 2.5)):
        (folder / "case").mkdir(parents=True)
        (folder / "log.jsonl").write_text(json.dumps({"step": 1, "seconds": seconds}) + "\n")
        (folder / "weights.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
        np.save(folder / "case" / "t1.npy", np.arange(5))
    assert differences(one, other) == []

    (other / "log.jsonl").write_text(json.dumps({"step": 2, "seconds": 1.5}) + "\n")
    np.save(other / "case" / "t1.npy", np.arange(1, 6))
    (other / "weights.safetensors").write_bytes(b"\x02\0")
    (other / "more.txt").touch()
    (one / "less.txt").touch()
    assert differences(one, other) == [
        "case/t1.npy differs",
        "less.txt is too many",
        "log.jsonl differs",
        "more.txt is missing",
        "weights.safetensors differs",
    ]
