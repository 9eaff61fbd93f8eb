"""Plans of pictures of CT: one level of soft tissue, and a starter in HU whose output is rescaled to their window."""

from dataclasses import replace

import pytest
import torch

from made_pictures import write_pictures
from preparing import prepare
from refusals import refuses
from rows import every_row, slow
from trainings import log_lines, weights_of
from voxlate.scans.cases.prepared import open_cohort
from voxlate.science.nets.interface import Channels, NetworkInput
from voxlate.science.nets.unet import ResidualUNet, UNet
from voxlate.training.planning import planner
from voxlate.training.planning.cohort_facts import cohort_facts, roles_of
from voxlate.training.planning.from_weights import adapt, begin_from, find_starter
from voxlate.training.planning.rules import Size, first_stage, with_samples
from voxlate.training.recipe import from_dict, stage_recipe
from voxlate.training.starters import names
from voxlate.training.train import initial_method, train
from voxlate.training.validate import validation_items

WINDOWS = [(0, 80), (10, 90), (-10, 70)]


@pytest.fixture(scope="module")
def pictures_once(tmp_path_factory):
    """Pictures of three patients that show -20 to 100 HU by statement, prepared once."""
    root = write_pictures(tmp_path_factory.mktemp("pictures") / "slices", WINDOWS, slices=1)
    return prepare(root, root.parent / "prepared", shares=(2, 1, 0), window=(-20, 100), audit=False)


@pytest.fixture
def pictures(pictures_once, shipped_starters, monkeypatch):
    """The prepared pictures, beside the starters of the package."""
    monkeypatch.setattr(names, "FOLDER", shipped_starters)
    return pictures_once


@pytest.fixture
def draft(pictures):
    """The draft of a plan for the pictures that begins from the starter."""
    facts = replace(cohort_facts(pictures), bodies="head")
    roles = roles_of(facts)
    starter, _ = find_starter(facts, roles)
    made = first_stage(facts, roles, Size(32, 2), 400)
    begin_from(starter, made)
    return made


def test_a_plan_of_pictures_levels_them_and_rescales_the_starter_to_their_window(draft):
    assert draft.tables["start_from"] == "starter:head-mr-to-ct"
    assert draft.tables["start_window"] == {"ct": [-20.0, 100.0]}
    assert draft.data["level"] is True
    # A slope of 0.1 in the starter's own unit, whose range has 3000 HU.
    assert draft.tables["method"]["leak"] == pytest.approx(0.1 * 120 / 3000)
    assert {"start_window.ct", "data.level"} <= draft.why.keys()
    assert draft.recipe.start_window == {"ct": (-20.0, 100.0)}


def test_random_weights_have_one_level_and_no_window(pictures):
    facts = cohort_facts(pictures)
    made = first_stage(facts, roles_of(facts), Size(16, 2), 400)
    assert made.data["level"] is True
    assert "start_window" not in made.tables
    back = roles_of(facts, ["ct"], ["mr"])
    assert "level" not in first_stage(facts, back, Size(16, 2), 400).data
    one = replace(facts, training=facts.training[:1])
    assert "level" not in first_stage(one, roles_of(one), Size(16, 2), 400).data


def test_the_rescaled_starter_gives_the_window_of_its_own_hounsfield_units(draft, pictures):
    stage = draft.recipe.all_stages[0]
    (batch,) = validation_items(draft.recipe, stage, pictures)
    images = []
    for one in (stage, replace(stage, start_window={})):
        method = initial_method(one, {}).eval()
        with torch.no_grad():
            images.append(method.net(method.task.pose(batch).inputs).image)
    rescaled, own = images
    hu = -1000 + (own + 1) * 1500
    grey = 2 * (hu + 20) / 120 - 1
    # Beyond the window values are large, and float32 rounds them.
    torch.testing.assert_close(rescaled, grey, rtol=1e-5, atol=1e-4)
    shown = (grey.abs() < 1).float().mean()
    assert 0.02 < shown < 0.98


@every_row("patch, refine", [(1, 0), (2, 0), (1, 4), (2, 4)])
def test_a_rescaled_network_changes_one_channel_alone(patch, refine):
    torch.manual_seed(0)
    settings = UNet(
        width=8,
        multipliers=(1, 2),
        blocks=1,
        patch=patch,
        refine=refine,
        groups=4,
        middle_attention=False,
        zero_init=False,
    )
    net = ResidualUNet(settings, Channels(images={"mr": 1}, state=0, out=2)).eval()
    if net.refinement is not None:  # its last layer starts at zero
        for parameter in net.refinement.last.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    inputs = NetworkInput(images={"mr": torch.rand(1, 1, 1, 20, 18)})
    with torch.no_grad():
        before = net(inputs).image
        net.rescale(1, 25.0, -7.0)
        after = net(inputs).image
    torch.testing.assert_close(after[:, 0], before[:, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after[:, 1], 25 * before[:, 1] - 7, rtol=1e-4, atol=1e-4)


def test_the_stage_that_begins_from_the_starter_keeps_its_window(draft):
    tables = with_samples(draft.tables, draft.tables["net"], 400, "both")
    recipe = from_dict(tables, "the plan")
    predictor, last = recipe.all_stages
    assert (predictor.start_window, last.start_window) == ({"ct": (-20.0, 100.0)}, {})
    assert (predictor.data.level, last.data.level) == (True, True)
    assert stage_recipe(recipe, predictor.name).start_window == predictor.start_window


START = {"start_from": "starter:tiny"}
STILL = {"optimiser": "{ lr = 1e-12 }", "ema": 0.0}  # a step that moves nothing


@every_row(
    "changes",
    [
        START | {"start_window": "{ t2 = [1050, 350] }"},
        START | {"start_window": "{ t1 = [350, 1050] }"},
        {"start_window": "{ t2 = [350, 1050] }"},
        START | {"start_window": "{ t2 = [350, 1050] }", "method.kind": "diffusion"},
    ],
)
def test_a_start_window_that_cannot_be_is_refused(read_tiny, changes):
    with refuses("start_window"):
        read_tiny(changes)


def test_a_training_begins_in_the_window_and_its_run_is_continued_without_it(
    starter, read_tiny, fit, prepared, tmp_path
):
    window = START | {"start_window": "{ t2 = [350, 1050] }"}
    run = fit(read_tiny(window, steps=1, **STILL), "begun")
    own, begun = (
        {name: tensor.float() for name, tensor in weights_of(one).items()} for one in (starter, run)
    )
    torch.testing.assert_close(begun["net.head.weight"], 2 * own["net.head.weight"])
    others = [name for name in own if "net.head" not in name]
    assert all(torch.allclose(own[name], begun[name]) for name in others)
    adapted = adapt(run.folder, prepared, tmp_path / "adapted", steps=1, device="cpu")
    assert adapted.origin["recipe"].get("start_window", {}) == {}
    again = fit(read_tiny(window, steps=1, **STILL), "again", init=run.folder)
    torch.testing.assert_close(weights_of(again)["net.head.weight"], begun["net.head.weight"])


def test_a_starter_is_adapted_to_pictures_in_their_window(pictures, tmp_path):
    said = []
    run = adapt(
        "starter:head-mr-to-ct", pictures.folder, tmp_path / "run", steps=1, say=said.append
    )
    recipe = run.origin["recipe"]
    assert recipe["start_window"] == {"ct": [-20, 100]}
    assert "borders" not in recipe["method"] or not recipe["method"]["borders"]
    assert "assumed" in [one.code for one in said]
    again = adapt(run.folder, pictures.folder, tmp_path / "again", steps=1)
    assert not again.origin["recipe"]["start_window"]
    (*_, last), (begun, *_) = (log_lines(one, "validation") for one in (run, again))
    assert begun["validation"]["mae"] == pytest.approx(last["validation"]["mae"], rel=0.01)


@slow
def test_a_planned_training_of_pictures_runs(pictures, tmp_path, monkeypatch):
    trials = []

    def trial(_, recipe, *__):
        trials.append(recipe.start_window)
        return abs(recipe.start_from is None), 8

    monkeypatch.setattr(planner.Probe, "trial", trial)
    monkeypatch.setattr(planner, "find_starter", _of_heads)
    options = {"minutes": 0.2, "memory": 8 * 2**30, "mode": "mean"}
    made = planner.plan_training(pictures.folder, **options, settings={"train.steps": 2})
    assert trials == [{"ct": (-20.0, 100.0)}, {}]
    assert made.recipe.data.level
    assert from_dict(made.tables, "the plan") == made.recipe
    run = train(made.recipe, pictures.folder, tmp_path / "run", device="cpu")
    assert log_lines(run, "validation")


def _of_heads(facts, roles):
    """The starter for these scans, as if it were certain that they are of heads."""
    return find_starter(replace(facts, bodies="head"), roles)


def test_a_cohort_without_a_statement_has_the_window_of_the_brain(pictures, tmp_path):
    cohort = open_cohort(pictures.folder)
    cohort.provenance["window"] = None
    facts = replace(cohort_facts(cohort), bodies="head")
    starter, _ = find_starter(facts, roles_of(facts))
    made = first_stage(facts, roles_of(facts), Size(32, 2), 400)
    begin_from(starter, made)
    assert made.tables["start_window"] == {"ct": [0.0, 80.0]}
