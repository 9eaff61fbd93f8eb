"""The log of a training goes to a tracker, too: its numbers, and nothing else."""

import sys
from types import ModuleType

import pytest

from refusals import refuses
from trainings import log_lines


@pytest.fixture
def mlflow(monkeypatch):
    """A package of MLflow that keeps what it gets: [(numbers, step)], and which runs begin and end."""
    package = ModuleType("mlflow")
    package.sent, package.runs = [], []
    package.search_experiments = lambda **_: []
    package.create_experiment = lambda **_: "1"
    package.start_run = lambda **_: package.runs.append("begins")
    package.end_run = lambda: package.runs.append("ends")
    package.log_metrics = lambda numbers, step: package.sent.append((numbers, step))
    monkeypatch.setitem(sys.modules, "mlflow", package)
    return package


def test_a_tracker_gets_the_losses_and_validations_of_the_log(mlflow, read_tiny, fit):
    run = fit(read_tiny(), track="mlflow")

    def sent(key):
        return {step: numbers[key] for numbers, step in mlflow.sent if key in numbers}

    losses = {line["step"]: line["loss"]["l1"] for line in log_lines(run, "loss")}
    assert sent("final/net/l1") == pytest.approx(losses)
    assert [*sent("final/validation/mae")] == [3, 6]
    assert all(isinstance(value, float) for numbers, _ in mlflow.sent for value in numbers.values())
    assert mlflow.runs == ["begins", "ends"]  # a later stage could not begin one while this is open


def test_a_tracker_that_is_not_installed_is_refused(read_tiny, fit, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with refuses("--track"):
        fit(read_tiny(), track="wandb")
