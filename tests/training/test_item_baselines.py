"""The model and naive baselines on validation items: hand-made items, and the verdict that a training ends with."""

import json

import numpy as np
import pytest
import torch

from refusals import refuses
from trainings import log_lines
from voxlate.base.files import read_json
from voxlate.evaluation.reports.page import report
from voxlate.science.batch import Batch
from voxlate.training.item_baselines import ItemErrors, fit_items
from voxlate.training.log_file import read_verdicts
from voxlate.training.run import Run

SHAPE = (1, 24, 20)


def items(sources, targets, present=None, target_present=None):
    """A batch of one item from images [D, H, W] by name."""
    source, target = (
        torch.from_numpy(np.stack([*images.values()]))[None].float()
        for images in (sources, targets)
    )
    return Batch(
        source=source,
        target=target,
        mask=torch.ones(1, 1, *SHAPE),
        present=torch.tensor([present or [True] * len(sources)]),
        target_present=None if target_present is None else torch.tensor([target_present]),
        item=torch.zeros(1, 1, dtype=torch.int64),
        source_names=tuple(sources),
        target_names=tuple(targets),
    )


def measured(batches, batch, given=None, image=None):
    """The errors by target and method on a batch, of baselines that are fitted to others."""
    sources, targets = ([*names] for names in (batch.source_names, batch.target_names))
    found = ItemErrors(fit_items(batches, sources, targets), ["p0"])
    found.add(batch, given or batch, batch.target if image is None else image)
    return {
        target: {method: one["0"] for method, one in methods.items()}
        for target, methods in found.errors.items()
    }


def image(seed):
    return np.random.default_rng(seed).uniform(-1, 1, SHAPE).astype(np.float32)


def test_the_table_of_an_item_recovers_a_function_of_its_source():
    batches = [items({"t1": image(seed)}, {"ct": image(seed) ** 2}) for seed in range(4)]
    held_out = image(9)
    batch = items({"t1": held_out}, {"ct": held_out**2})
    errors = measured(batches, batch, image=torch.zeros(1, 1, *SHAPE))["ct"]
    assert errors["synthesis"] == pytest.approx(np.mean(held_out**2), rel=1e-5)
    assert errors["copy of t1"] == pytest.approx(np.mean(np.abs(held_out - held_out**2)), rel=1e-5)
    assert errors["intensity table"] < 0.01, "1024 bins of width 1/512, of which some have no voxel"


def test_least_squares_of_two_sources_recovers_their_sum():
    def summed(first, second):
        a, b = image(first), image(second)
        return items({"a": a, "b": b}, {"ct": 0.3 * a - 0.5 * b + 0.1})

    errors = measured([summed(n, n + 10) for n in range(3)], summed(20, 30))["ct"]
    assert errors["least squares"] == pytest.approx(0, abs=1e-5)
    assert errors["synthesis"] == 0


def test_only_what_was_hidden_from_the_model_is_measured():
    both = {"t1": image(0), "t2": image(1)}
    batch, given = items(both, both), items(both, both, present=[True, False])
    errors = measured([batch], batch, given)
    assert set(errors) == {"t2"}
    assert set(errors["t2"]) == {"synthesis", "copy of t1", "intensity table"}


def test_a_target_that_an_item_lacks_is_not_measured():
    batch = items({"t1": image(0)}, {"ct": image(1), "t2": image(2)}, target_present=[True, False])
    assert set(measured([batch], batch)) == {"ct"}


@pytest.mark.slow
def test_the_model_is_measured_as_the_validation_measures_it(trained, tiny):
    """One patient validates, and each batch is an item: the mean over patients is that over batches."""
    run = trained("one_by_one", tiny.read_text().replace("steps = 2 }", "steps = 2, batch = 1 }"))
    mae = log_lines(run, "validation")[-1]["validation"]["mae"]
    (verdict,) = Run(run).verdicts
    assert verdict.synthesis == pytest.approx(mae, rel=1e-5)
    assert verdict.patients == len(read_json(run / "provenance.json")["data"]["splits"]["val"]) == 1


def test_a_training_ends_with_its_verdict_and_so_does_its_page(voxlate, run, prepared, tiny):
    answer = voxlate("train", tiny, "--data", prepared, "--out", run).done()
    (verdict,) = Run(run).verdicts
    assert verdict.outcome == "worse", "six steps teach nothing"
    assert answer.out.splitlines()[-1] == f"✗ {verdict.sentence}"
    head = report(run).read_text(encoding="utf-8").partition("<nav")[0]
    assert '<p class="verdict worse">✗ WORSE THAN the best naive baseline (intensity table' in head


def test_the_last_verdicts_of_a_log_are_read_and_a_cut_line_is_left_out(tmp_path):
    log = tmp_path / "log.jsonl"
    assert read_verdicts(log) == {}

    def line(outcome):
        verdict = {"modality": "ct", "outcome": outcome, "sentence": "said"}
        return json.dumps({"stage": "final", "step": 1, "verdict": {"ct": verdict}})

    log.write_text("\n".join([line("worse"), line("better"), '{"stage": "fi']))
    assert [verdict.outcome for verdict in read_verdicts(log)["final"]] == ["better"]
    log.write_text(line(3))
    with refuses("expected a line of a training's log"):
        read_verdicts(log)
