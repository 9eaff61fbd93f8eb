"""How a training starts: what it says first, what a failed start leaves, and several processes at once."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import chain

import pytest

from preparing import prepare
from refusals import refuses
from rows import slow
from trainings import log_lines, same_weights
from voxlate.base.files import lock
from voxlate.training import recipe
from voxlate.training.run import Run


@pytest.fixture
def only_training(cohort, tmp_path):
    """A prepared cohort without validation and test cases, one of which lacks t2."""
    (cohort / "case3/t2.nii.gz").unlink()
    return prepare(cohort, tmp_path / "ready", workers=0, audit=False, shares=(1, 0, 0)).folder


def test_without_validation_training_items_are_looked_at_and_cases_that_are_left_out_listed(
    voxlate, only_training, tiny, out
):
    answer = voxlate("train", tiny, "--data", only_training, "--out", out).done()
    assert answer.err.count("no validation cases: training items are used instead") == 1
    assert "note: left out of training: case3 (no t2)." in answer.err
    names = [set(line["validation"]) for line in log_lines(out, "validation")]
    assert names == [{"training_items_loss", "training_items_mae"}] * 2


def test_validation_patients_may_choose_the_first_weights_alone(read_tiny, fit):
    """A training that goes wrong ends with the weights from which it began."""
    first = fit(read_tiny(steps=80), "first")
    for lr, share in (("1e-3", 0.5), ("30", 1)):
        again = read_tiny({"train.optimiser.lr": lr}, keep_start=0.5, steps=12)
        said = []
        done = fit(again, lr, init=first.weights(), say=said.append)
        assert [one.numbers["share"] for one in said if one.code == "keep-start"] == [share]
        assert same_weights(done, first) == (share == 1)


def test_a_folder_that_another_training_writes_is_refused(read_tiny, fit, out):
    with lock(out), refuses("found one that does"):
        fit(read_tiny(), "out")


def test_weights_to_begin_from_that_do_not_fit_leave_no_folder(read_tiny, fit, run, out):
    for start in (Run(run).weights(), out / "nowhere.safetensors"):
        with refuses():
            fit(read_tiny({"net.width": "16"}), "out", init=start)
        assert not out.exists()


def test_a_start_that_failed_late_does_not_block_the_next(read_tiny, fit, tmp_path):
    (tmp_path / "no_run").mkdir()
    made, other = read_tiny(), read_tiny(steps=1)
    first = replace(made, stages=[replace(made.all_stages[0], name="first")])
    with refuses("expected a run to take stages from"):
        fit(first, reuse=[tmp_path / "no_run"])
    assert recipe.read(str(fit(other).recipe)) == other


PORT = str(29600 + os.getpid() % 1000)
LAUNCH = f"torch.distributed.run --nproc-per-node 2 --master-port {PORT}".split()


def launch(*arguments):
    """Two processes of `voxlate train`, whose output is read as one text."""
    words = ["-m", *LAUNCH, "-m", "voxlate", "train", *arguments, "--device", "cpu"]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, *map(str, words)], **output)


@slow
def test_a_signal_ends_two_processes_within_ten_seconds(prepared, tiny, tmp_path):
    keys = ("steps=100000", "validate_every=0", "log_every=1000")
    lengths = chain.from_iterable(("--set", f"train.{key}") for key in keys)
    running = launch(tiny, "--data", prepared, "--out", tmp_path / "run", *lengths)
    while not Run(tmp_path / "run").state.exists():
        assert running.poll() is None
        time.sleep(0.5)
    begun = time.monotonic()
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=60)
    assert time.monotonic() - begun < 10


@slow
def test_weights_whose_modalities_lie_in_another_order_are_no_start(
    voxlate, prepared, tiny, tmp_path
):
    line = ("train", tiny, "--data", prepared, "--set=train.steps=1", "--set=task.kind=complete")
    both = ('--set=data.source=["t1", "t2"]', '--set=data.target=["t1", "t2"]')
    turned = ('--set=data.source=["t2", "t1"]', '--set=data.target=["t2", "t1"]')
    voxlate(*line, "--out", tmp_path / "one", *both).done()
    start = ("--out", tmp_path / "two", "--init", tmp_path / "one")  # a run: its weights
    refusal = voxlate(*line, *start, *turned).refusal
    assert "expected data.source of the stage 'final' in the order of" in refusal
    said = "weights.safetensors, whose weights it starts from (t1, t2), found t2, t1. Reorder it."
    assert said in refusal
    assert not (tmp_path / "two").exists()
    voxlate(*line, *start, *both).done()
