"""Paper 000 as recipes: its published numbers, and rows of its ablation that differ where their names say."""

import dataclasses

import pytest
import torch

from voxlate.base.errors import BadInput
from voxlate.training import recipe as recipes
from voxlate.training.recipe import Recipe


def test_the_schedule_ends_where_the_paper_s_betas_end():
    schedule = recipes.read("mrdpm").method.schedule  # type: ignore[union-attr]
    t = torch.tensor([0.999, 1.0], dtype=torch.float64)
    alpha, sigma = schedule(t)
    assert float(alpha[1] ** 2) == pytest.approx(0.00662264, rel=1e-4)
    variance = (sigma[0] / sigma[1]) ** 2 * (1 - (alpha[1] / alpha[0]) ** 2)
    assert float(variance) == pytest.approx(0.0099993, rel=1e-4)


def test_the_learning_rate_is_held_for_half_of_the_steps_and_ends_at_a_hundredth():
    optimiser = recipes.read("mrdpm").train.optimiser
    steps = 411_000
    rates = [optimiser.lr * optimiser.factor(step, steps) for step in (0, steps // 2, steps)]
    assert rates == pytest.approx([5e-5, 5e-5, 5e-7])


def switches(made: Recipe) -> tuple[bool, bool, bool, bool]:
    """Mask, residual, BRAN, MAP: the columns of table 2."""
    regions = any(getattr(stage.net, "regions", 0) > 0 for stage in made.stages)
    asymmetry = getattr(made.task, "asymmetry", False)
    return made.task.inside, made.task.kind == "residual", regions, asymmetry  # type: ignore[union-attr]


@pytest.mark.parametrize("size", ["", "_small"])
def test_the_rows_of_the_ablation_switch_on_one_thing_after_another(size):
    names = ("_plain", "_masked", "_pix2pix", "_bran", "")
    rows = [recipes.read(f"mrdpm{name}{size}") for name in names]
    assert [sum(switches(row)) for row in rows] == [0, 1, 2, 3, 4]
    assert all(list(switches(row)) == sorted(switches(row), reverse=True) for row in rows)
    assert all(row.task.strip for row in rows)  # type: ignore[union-attr]
    for row in rows:
        assert row.method == (rows[-1] if row.stages else rows[0]).method
        differ = ("title", "task", "method", "stages", "train", "synth")
        said = {name: getattr(rows[0], name) for name in differ}
        assert dataclasses.replace(row, **said) == rows[0]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"net.kind": "xmodality_unet"}, "'unet' of the network"),
        ({"synth.slices.kind": "tiled"}, "expected whole slices"),
    ],
)
def test_an_asymmetry_that_cannot_be_is_refused_before_training(changes, sentence):
    text = recipes.to_dict(recipes.read("mrdpm_small"))
    for key, value in changes.items():
        *tables, last = key.split(".")
        table = text
        for name in tables:
            table = table.setdefault(name, {})
        if name == "net" or name == "slices":
            table.clear()
        table[last] = value
    with pytest.raises(BadInput, match=sentence):
        recipes.from_dict(text, "changed")


def test_a_predictor_without_features_is_refused():
    text = recipes.to_dict(recipes.read("mrdpm_small"))
    text["stages"][0]["net"] = {"kind": "unet"}
    with pytest.raises(BadInput, match="'bran' of the predictor"):
        recipes.from_dict(text, "changed")
