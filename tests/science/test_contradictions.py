"""Recipes of the papers: contradictions are refused by the name of their key; paper 000 has its published numbers and rows."""

import dataclasses

import pytest

from refusals import refuses
from rows import every_row
from voxlate.science.diffusion.schedules import LinearBetas
from voxlate.training import recipe
from voxlate.training import recipe as recipes
from voxlate.training.recipe import Recipe

FLOW, CYCLE, BRAIN = "mr_to_ct_slices_flow", "cyclegan_tmax_small", "t1_to_t2_brain"
SCORE, MAP = "mr_to_ct_em_small", "mrdpm_small"


@every_row(
    "name, changes, words",
    [
        ("umm_csgm_small", {"task.curriculum": "[[0.5, 0.2], [0.4, 0.5]]"}, r"task\.curriculum"),
        ("umm_csgm_small", {"task.curriculum": "[[1.5, 0.5]]"}, r"task\.curriculum"),
        ("mr_to_ct_cnn", {"task.range": "[1, 0]"}, r"task\.range: expected a lower and an upper"),
        ("mr_to_ct_cnn", {"method.leak": "0.1"}, r"task\.range"),
        (FLOW, {"synth.eta": "1.0"}, r"synth\.eta"),
        (BRAIN, {"method": '{ kind = "flow" }', "stages": "[]"}, r"task\.kind = 'residual'"),
        (BRAIN, {"method.windows.brain": "[0.2, 0.1]"}, r"method\.windows\.brain as \[low"),
        (BRAIN, {"method.windows.brain": "[5, 80]"}, r"method\.windows\.brain as \[low"),
        (BRAIN, {"method.borders": "{ bone = [0, 0, 1] }"}, r"method\.borders\.bone, found 0"),
        (BRAIN, {"method.extras": "{ codes = 1.0 }"}, r"method\.extras of none"),
        ("coca_gan_small", {"data.labels": "[]"}, r"one label map in data\.labels"),
        ("mm_gan_small", {"opponent.critic.maps": "3"}, r"opponent\.critic\.maps"),
        (CYCLE, {"task": '{ kind = "complete" }'}, "task.kind"),
        (CYCLE, {"method.identity": "5.0"}, "found 4 and 1"),
        (MAP, {"net": '{ kind = "xmodality_unet" }'}, "'unet' of the network"),
        (MAP, {"data.centred": "false"}, r"data\.centred"),
        ("pix2pix_swi_mra_small", {"net.regions": "3"}, "regions"),
        ("pix2pix_swi_mra_small", {"net.drop_block": "2"}, "odd side"),
        (SCORE, {"method.schedule": '{ kind = "sigmoid", start = 1, end = 1 }'}, "sigmoid"),
        (SCORE, {"method.schedule": '{ kind = "linear_betas", count = 1 }'}, "count"),
        (SCORE, {"method.schedule": '{ kind = "flow", speed = 2 }'}, "speed"),
        (
            SCORE,
            {"method.weight": '{ kind = "table", log_snr = [1, 0], weight = [1, 1] }'},
            "rising log_snr",
        ),
        (SCORE, {"synth.windows": "{ size = 4, overlap = 4 }"}, r"synth\.windows"),
        (SCORE, {"synth.sampler": "no_such"}, r"synth\.sampler"),
        (SCORE, {"synth.sampler": "dpmpp_2m", "synth.eta": "0.5"}, r"synth\.eta"),
        (SCORE, {"synth.noise": '{ kind = "correlated", length_mm = 0 }'}, "length_mm"),
        (SCORE, {"synth.r": "0"}, r"synth.*r.* found"),
    ],
)
def test_a_contradiction_is_refused_by_the_name_of_its_key(name, changes, words):
    with refuses(words):
        made = recipe.read(name, changes)
        made.build()


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
