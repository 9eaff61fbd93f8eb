"""Stages hand weights on, and nothing else: no stage changes another, and none is taken for a different one."""

import pytest
import torch

from trainings import same_tensors, same_weights, weights_of
from voxlate.base.errors import BadInput
from voxlate.training import recipe as recipes
from voxlate.training.recipe import from_dict, to_dict
from voxlate.training.train import train


def staged(tiny, tmp_path, **changes):
    values = to_dict(recipes.read(str(tiny)))
    values["train"] |= {"steps": 2, "validate_every": 0}
    values |= changes
    return from_dict(values, "tiny")


def stage(name: str, tiny, **changes):
    values = to_dict(recipes.read(str(tiny)))
    return {
        "name": name,
        "method": values["method"],
        "net": values["net"],
        "train": {"steps": 2, "batch": 2},
        **changes,
    }


RESIDUAL = {"kind": "residual", "predictor": "predictor"}


@pytest.mark.slow
def test_a_stage_that_trains_its_predictor_leaves_that_of_other_stages_alone(
    prepared, tiny, tmp_path
):
    stages = [
        stage("predictor", tiny),
        stage(
            "middle", tiny, task={**RESIDUAL, "predictor_weight": 1.0}, method={"kind": "diffusion"}
        ),
    ]
    recipe = staged(tiny, tmp_path, task=RESIDUAL, method={"kind": "diffusion"}, stages=stages)
    run = train(recipe, prepared, tmp_path / "run", device="cpu")
    alone, final, start = weights_of(run, "predictor"), weights_of(run), "task.predictor."
    held = {name.removeprefix(start): final[name] for name in final if name.startswith(start)}
    assert held
    assert all(torch.equal(held[name], alone[name]) for name in held)
    for path in (run.weights(), run.state):
        path.unlink()
    assert same_tensors(weights_of(train(recipe, prepared, run.folder, device="cpu")), final)


@pytest.mark.slow
def test_a_stage_is_reused_only_where_all_that_it_depends_on_is_the_same(prepared, tiny, tmp_path):
    first = [stage("a", tiny), stage("b", tiny, start_from="a")]
    begun = train(staged(tiny, tmp_path, stages=first), prepared, tmp_path / "one", device="cpu")
    fresh = [stage("a", tiny), stage("b", tiny)]
    recipe = staged(tiny, tmp_path, stages=fresh)
    reusing = train(recipe, prepared, tmp_path / "two", device="cpu", reuse=[begun.folder])
    assert same_weights(reusing, begun, "a")
    assert not same_weights(reusing, begun, "b")


def test_a_predictor_must_be_given_the_modalities_of_the_stage_that_builds_on_it(tiny, tmp_path):
    data = {"source": ["t2"], "target": ["t2"], "patch": [1, 24, 20]}
    with pytest.raises(
        BadInput, match=r"expected data.source of the stage 'predictor' to be \['t1'\]"
    ):
        staged(tiny, tmp_path, task=RESIDUAL, stages=[stage("predictor", tiny, data=data)])
