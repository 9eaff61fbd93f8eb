"""Stages hand weights on, and nothing else: no stage changes another, and none is taken for a different one."""

import pytest
import torch

from refusals import refuses
from rows import slow
from trainings import same_tensors, same_weights, weights_of
from voxlate.scans.cases.prepared import open_cohort
from voxlate.training.recipe import from_dict, to_dict
from voxlate.training.train import check_training


@pytest.fixture
def staged(read_tiny):
    """staged({"predictor": {}}, task=…): the recipe `tiny` behind these stages, with changes of each."""

    def staged(stages, **changes):
        values = to_dict(read_tiny(steps=2, validate_every=0))
        stage = {"method": values["method"], "net": values["net"]}
        stage["train"] = {"steps": 2, "batch": 2}
        stages = [{"name": name, **stage, **own} for name, own in stages.items()]
        return from_dict(values | changes | {"stages": stages}, "tiny")

    return staged


RESIDUAL = {"kind": "residual", "predictor": "predictor"}
DIFFUSION = {"kind": "diffusion"}


@slow
def test_a_stage_that_trains_its_predictor_leaves_that_of_other_stages_alone(staged, fit):
    middle = {"task": {**RESIDUAL, "predictor_weight": 1.0}, "method": DIFFUSION}
    recipe = staged({"predictor": {}, "middle": middle}, task=RESIDUAL, method=DIFFUSION)
    run = fit(recipe)
    alone, final = weights_of(run, "predictor"), weights_of(run)
    for name, tensor in alone.items():
        assert torch.equal(final[f"task.predictor.{name}"], tensor)
    for path in (run.weights(), run.state):
        path.unlink()
    assert same_tensors(weights_of(fit(recipe)), final)


@slow
def test_a_stage_is_reused_only_where_all_that_it_depends_on_is_the_same(staged, fit):
    begun = fit(staged({"a": {}, "b": {"start_from": "a"}}), "one")
    reusing = fit(staged({"a": {}, "b": {}}), "two", reuse=[begun.folder])
    assert same_weights(reusing, begun, "a")
    assert not same_weights(reusing, begun, "b")


def test_a_predictor_must_be_given_the_modalities_of_the_stage_that_builds_on_it(staged):
    data = {"source": ["t2"], "target": ["t1"], "patch": [1, 24, 20]}
    refusal = r"expected data.source of the stage 'predictor' to be \['t1'\]"
    with refuses(refusal):
        staged({"predictor": {"data": data}}, task=RESIDUAL)


@pytest.mark.parametrize(("high", "said"), [(255, True), (1400, False)])
def test_a_window_of_pictures_on_other_scans_is_said_once_for_all_stages(
    read_two, prepared_once, high, said
):
    window = f'{{ kind = "window", low = 0, high = {high} }}'
    messages = check_training(read_two({"intensity.t2": window}), open_cohort(prepared_once))
    found = [
        (one.grade, "--set 'intensity.t2={" in one.text) for one in messages if one.code == "window"
    ]
    assert found == [("caution", True)] * said
