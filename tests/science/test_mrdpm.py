"""Paper 000 as recipes: its published numbers, and rows of its ablation that differ where their names say."""

import dataclasses

import pytest

from rows import every_row
from voxlate.science.diffusion.schedules import LinearBetas
from voxlate.training import recipe as recipes
from voxlate.training.recipe import Recipe


def test_the_schedule_ends_where_the_paper_s_betas_end():
    """Its last alpha², 0.00662264, and variance, 0.0099993, are those of this table (test_schedules, test_samplers)."""
    schedule = LinearBetas(first=1e-6, last=1e-2, count=1000)
    assert recipes.read("mrdpm").method.schedule == schedule


def test_the_learning_rate_is_held_for_half_of_the_steps_and_ends_at_a_hundredth():
    optimiser = recipes.read("mrdpm").train.optimiser
    rates = [optimiser.lr * optimiser.factor(step, 400) for step in (0, 200, 400)]
    assert rates == pytest.approx([5e-5, 5e-5, 5e-7])


def switches(made: Recipe) -> tuple[bool, bool, bool, bool]:
    """Mask, residual, BRAN, MAP: the columns of table 2."""
    regions = any(getattr(stage.net, "regions", 0) > 0 for stage in made.stages)
    asymmetry = getattr(made.task, "asymmetry", False)
    return made.task.inside, made.task.kind == "residual", regions, asymmetry


@every_row("size", ["", "_small"])
def test_the_rows_of_the_ablation_switch_on_one_thing_after_another(size):
    changed = (
        ("_masked", {"task.inside": "false"}),
        ("_masked", {}),
        ("_pix2pix", {}),
        ("", {"task.asymmetry": "false"}),
        ("", {}),
    )
    rows = [recipes.read(f"mrdpm{name}{size}", changes) for name, changes in changed]
    for number, row in enumerate(rows):
        assert switches(row) == tuple(column < number for column in range(4))
        assert row.task.strip
        assert row.method == (rows[-1] if row.stages else rows[0]).method
        differ = ("title", "task", "method", "stages", "train", "synth")
        said = {name: getattr(rows[0], name) for name in differ}
        assert dataclasses.replace(row, **said) == rows[0]
