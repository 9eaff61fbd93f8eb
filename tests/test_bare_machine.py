"""The whole way where nothing is left of what only POSIX systems have."""

import os
import subprocess
import sys
from pathlib import Path

from rows import slow

BARE = Path(__file__).parent / "bare"
RECIPE = """
title = "bare"
data = { source = ["t1"], target = ["ct"], patch = [1, 24, 24] }
intensity = { t1 = { kind = "percentile" }, ct = { kind = "window", low = -1000, high = 1000 } }
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 4, batch = 2, precision = "float32", workers = 1, validation_items = 2 }
"""
# a script as a user would write it: what is spawned imports it again
SCRIPT = """
import multiprocessing, os, signal, sys

import voxlate
from voxlate.commands import cli


def run(*line):
    sys.argv = ["voxlate", *line]
    try:
        cli.main()
    except SystemExit as end:
        assert not end.code, line


if __name__ == "__main__":
    for module, name in (os, "fork"), (os, "sched_getaffinity"), (os, "getloadavg"), (signal, "pthread_sigmask"):
        assert not hasattr(module, name), name
    assert sys.modules["fcntl"] is None
    assert sys.modules["resource"] is None
    assert multiprocessing.get_start_method() == "spawn"
    run("phantom", "--out", "scans", "--cases", "4", "--size", "24", "24", "8", "--modalities", "t1", "--modalities", "ct")
    voxlate.prepare("scans", "ready", workers=2)
    run("train", "own.toml", "--data", "ready", "--out", "run", "--device", "cpu")
    run("synth", "run", "scans", "--out", "made", "--split", "val", "--device", "cpu")
    run("evaluate", "made", "--truth", "scans")
"""


@slow
def test_phantom_prepare_train_synth_and_evaluate_work_without_posix_calls(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "own.toml").write_text(RECIPE)
    path = os.pathsep.join([str(BARE), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "made" / "metrics.json").is_file()
    assert len(list((tmp_path / "ready" / "cases").glob("*.safetensors"))) == 4
    assert not list(tmp_path.rglob(".lock"))
