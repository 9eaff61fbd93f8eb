"""Every recipe that comes with the package loads, explains itself, builds its networks and takes a step."""

import dataclasses
import json
import re
import tomllib

import pytest
import torch

from refusals import refuses
from voxlate.commands.api.choosing import key_lines
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Noise
from voxlate.training import recipe as recipes


def test_every_recipe_says_what_to_expect_explains_its_keys_and_survives_being_written():
    for name in recipes.names():
        head, made = recipes.head_of(name), recipes.read(name)
        assert re.search(rf"voxlate train {name} |--like {name}\b|voxlate demo", head), name
        assert "measured" in head.lower(), name
        measured = re.search(
            r"Measured(?!:? (not|see|no scores))|step of \d+ (slices|crops)|In float32", head
        )
        if measured:
            assert re.search("bfloat16|float32", head[measured.start() :].split("\n")[0]), name
        assert recipes.from_dict(json.loads(json.dumps(recipes.to_dict(made))), name) == made
        for line in key_lines(made):
            assert len(line.partition("  ")[2]) > 3, (name, line)


MOST = {"depth": 2, "blocks": 2, "groups": 8, "head_width": 8}


def narrow(values, place=""):
    """The changes that leave an eighth of the channels, in small groups, and two blocks of a recipe's networks.

    Networks of paper size take minutes a step and gigabytes; the other settings stay the recipe's.
    """
    changes = dict[str, str]()
    for key, value in values.items():
        is_list = f"{place}{key}" == "stages"
        inner = {stage["name"]: stage for stage in value} if is_list else value
        if isinstance(inner, dict):
            changes |= narrow(inner, f"{place}{key}.")
        elif key in ("width", "widths"):
            less = [one // 8 for one in value] if isinstance(value, list) else value // 8
            changes[f"{place}{key}"] = str(less)
        elif key in MOST:
            changes[f"{place}{key}"] = str(min(value, MOST[key]))
    return changes


LIKE = [  # these train what another one trains, and draw otherwise
    f"mr_to_ct_{row}{size}" for row in ("pc", "ode") for size in ("", "_small")
]
# others of their tasks, methods and networks take a step in the slow tests
QUICK = [
    "coca_gan_small",
    "cyclegan_tmax_small",
    "make_a_volume_slices_swi_mra_small",
    "mr_to_ct_cnn_small",
    "mr_to_ct_em_small",
    "mr_to_ct_slices_flow",
    "mrdpm_masked_small",
    "phantom_t1_to_ct",
    "pix2pix_3d_swi_mra_small",
    "tof_to_cta_adm_small",
    "umm_csgm_small",
]
TRAINED = [name for name in recipes.names() if name not in LIKE]
LARGE = [name for name in TRAINED if f"{name}_small" in TRAINED]


def test_papers_000_and_002_train_their_epochs_on_a_cohort_of_any_size():
    for name in [
        "mrdpm",
        "mrdpm_masked",
        "pix2pix_tmax",
        "cyclegan_tmax",
        "sr3_tmax",
        "palette_tmax",
    ]:
        assert recipes.read(name).train.epochs == 200, name
    for name in ["mrdpm", "mrdpm_pix2pix"]:
        assert [stage.train.epochs for stage in recipes.read(name).stages] == [50], name
    assert recipes.read("mr_to_ct_em").train.epochs == 5000
    assert recipes.read("mrdpm_small").train.epochs is None


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        *((name, False) for name in QUICK),
        *(
            pytest.param(name, whole, marks=pytest.mark.slow)
            for whole, several in enumerate(({*TRAINED} - {*QUICK}, LARGE))
            for name in sorted(several)
        ),
    ],
)
def test_every_stage_of_a_recipe_takes_a_step(name, whole):
    size, side = (1, 32) if name in QUICK else (2, 64)
    made, earlier = recipes.read(name), {}
    if name in LARGE and not whole:
        made = recipes.read(name, narrow(recipes.to_dict(made)))
    torch.manual_seed(0)
    for stage in made.all_stages:
        data = stage.data
        channels, depth = len(data.source) * (1 + 2 * data.stack), min(data.patch[0], 5)
        method = earlier[stage.name] = stage.build(earlier)
        source = torch.rand(size, channels, depth, side, side) * 2 - 1
        empty = torch.zeros_like(source[:, :1])
        batch = Batch(
            source=source,
            mask=empty + 1,
            present=torch.ones(size, channels, dtype=torch.bool),
            item=torch.arange(size * depth).view(size, depth),
            target=source[:, : len(data.target)],
            labels=empty if data.labels else None,
            source_names=data.source_names,
        )
        for turn in method.turns:
            parameters = list(method.parameters_of(turn))
            optimiser = stage.train.optimiser.build(parameters)
            before = [value.detach().clone() for value in parameters]
            loss = method.loss(turn, batch, Noise(0, batch.item))["total"]
            loss.backward()
            optimiser.step()
            assert loss.isfinite()
            assert any(not torch.equal(old, new) for old, new in zip(before, parameters))
        method.eval().requires_grad_(False)


def test_a_recipe_that_only_draws_otherwise_trains_what_its_head_says():
    for name in LIKE:
        size = "_small" if name.endswith("_small") else ""
        made = recipes.read(name)
        trained = recipes.read(f"mr_to_ct_em{size}")
        assert dataclasses.replace(made, synth=trained.synth, title=trained.title) == trained
        assert made.synth != trained.synth


def test_the_saved_recipe_of_a_run_is_a_recipe(run):
    saved = tomllib.loads((run / "recipe.toml").read_text())
    assert recipes.from_dict(saved, "run") == recipes.read(str(run / "recipe.toml"))


def test_a_stage_of_a_modality_without_an_intensity_map_is_refused():
    values = recipes.values_of("mr_to_ct_slices")
    values["stages"][0]["data"] = values["data"] | {"source": ["t2"]}
    with refuses("found none for t2"):
        recipes.from_dict(values, "mine")


def test_a_completion_needs_two_modalities_without_neighbours_and_takes_cases_with_gaps_only_where_its_code_says_so():
    gaps = {"task.incomplete": "true", "data.allow_missing": "true"}
    one_sided = (dict([change]) for change in gaps.items())
    for changes, said in (
        (
            {"data.source": '["t2"]', "data.target": '["t2"]'},
            r"modalities or more .* found \['t2'\]",
        ),
        ({"data.stack": "1"}, r"expected data\.stack = 0"),
        *((change, r"Set both to true or both to false\.") for change in one_sided),
    ):
        with refuses(said):
            recipes.read("umm_csgm_small", changes)
    recipes.read("umm_csgm_small", gaps)
