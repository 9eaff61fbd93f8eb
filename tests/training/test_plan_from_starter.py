"""Plans that begin from a starter: which one fits, what changes, and how it is switched off."""

from dataclasses import replace

import pytest
import torch

from rows import every_row, slow
from trainings import weights_of
from voxlate.base.files import read_json
from voxlate.base.items import BACKGROUND
from voxlate.scans.cases.prepared import open_cohort
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Noise
from voxlate.training.planning import planner
from voxlate.training.planning.cohort_facts import Roles, cohort_facts, roles_of
from voxlate.training.planning.from_weights import (
    begin_from,
    find_starter,
    reason_against,
)
from voxlate.training.planning.rules import PARTS, Size, first_stage
from voxlate.training.recipe import from_dict
from voxlate.training.run import Run
from voxlate.training.starters import names
from voxlate.training.starters.card import read_card
from voxlate.training.train import initial_method
from voxlate.training.weights import load_method, read_header

SHORT = {"minutes": 0.2, "memory": 8 * 2**30}


@pytest.fixture
def facts(prepared):
    """Facts of the small cohort, as if it were of heads."""
    return replace(cohort_facts(open_cohort(prepared)), bodies="head")


@every_row(
    "changed, roles, reason",
    [
        (
            {"bodies": "brain"},
            None,
            "it knows heads with their skull, and most scans here show brains without a skull",
        ),
        (
            {"spacing_mm": (3.0, 5.0, 5.0)},
            None,
            "it was trained on pixels of 1 to 2 mm, and pixels here are 5 mm",
        ),
        ({}, Roles(("t2",), ("t1",), "the reverse"), "it synthesises no T1"),
    ],
)
def test_a_starter_of_other_scans_or_modalities_is_refused_with_a_reason(
    starter, facts, changed, roles, reason
):
    facts = replace(facts, **changed)
    found, why = find_starter(facts, roles or roles_of(facts))
    assert found is None
    assert reason in why


def test_a_starter_is_named_with_its_reason_also_where_names_have_further_words(starter, facts):
    found, why = find_starter(facts, roles_of(facts))
    assert found.name == "starter:tiny"
    names = {"t1_gewichtet": "t1", "t2_schädel": "t2"}
    scans = {name: replace(facts.scans[plain], name=name) for name, plain in names.items()}
    roles = Roles(*((name,) for name in names), "")
    found, why = find_starter(replace(facts, scans=scans), roles)
    assert found.tables["data"]["target"] == ["t2_schädel"]
    assert "t1_gewichtet is taken as t1" in why


def test_scans_in_another_unit_than_the_starters_have_the_map_of_a_plan(starter, facts):
    pictures = replace(facts.scans["t2"], unit="HU", least=0.0, most=255.0)
    changed = replace(facts, scans=facts.scans | {"t2": pictures})
    found, _ = find_starter(changed, roles_of(changed))
    assert found.kept == {"t1"}
    assert found.tables["intensity"]["t2"] == {"kind": "window", "low": 0.0, "high": 255.0}


T1_TO_T2 = Roles(("t1",), ("t2",), "pairs")


@pytest.fixture
def brains(facts):
    """The same facts, as of stripped brains."""
    return replace(facts, bodies="brain", spacing_mm=(3.0, 1.0, 1.0))


PAIRS = ("t1 t2", "ct", {"t1": ["t1w"], "t2": ["t2w", "flair"]})
EVERY = ("t1 t2 pd", "t1 t2 pd", {"t1": ["t1n"]})  # it completes


@every_row(
    "known, source, target, names",
    [
        (PAIRS, "flair t1w", "ct", "t1w flair ct"),
        (PAIRS, "t1w", "ct", None),
        (PAIRS, "t1w swi", "ct", None),
        (EVERY, "t1n", "t2", "t1n t2"),
        (EVERY, "t2 t1", "pd", "t1 t2 pd"),
        (EVERY, "t1 pd", "t1 pd", "t1 pd"),
        (EVERY, "t1", "ct", None),
        (EVERY, "t1 t1n", "t2", None),  # one channel of T1
    ],
)
def test_modalities_are_matched_by_accepted_names_in_the_order_of_the_starters(
    starter, known, source, target, names
):
    own, made, accepts = known
    card = replace(read_card(starter), source=own.split(), target=made.split(), accepts=accepts)
    found = card.match(source.split(), target.split())
    assert (found and " ".join(found.values())) == names


def test_stripped_brains_from_t1_to_t2_begin_from_the_starter_that_completes(
    shipped_starters, brains, monkeypatch
):
    monkeypatch.setattr(names, "FOLDER", shipped_starters)
    # Patches smaller than slices leave the starter's padding as it is.
    brains = replace(brains, shape=(6, 48, 40))
    found, _ = find_starter(brains, T1_TO_T2)
    draft = first_stage(brains, T1_TO_T2, Size(32, 2), 400)
    begin_from(found, draft)
    assert draft.tables["task"] == {"kind": "translate"}
    assert draft.data["lift"] == 0.12, "as the starter sees fluid"
    recipe = from_dict(draft.tables, "the plan")
    method = initial_method(recipe.all_stages[0], {})
    whole, completing, _ = load_method(shipped_starters / "brain-mr-to-mr")
    only_t1 = torch.arange(5)[None] == 0
    channels = completing.data.source_names, tuple(completing.data.target)
    images = []
    for made, trained, source, present, named in (
        (method.eval(), recipe, _t1(1), only_t1[:, :1], (("t1",), ("t2",))),
        (whole, completing, _t1(5), only_t1, channels),
    ):
        item = torch.zeros(1, 1, dtype=torch.int64)
        mask = (source > BACKGROUND).any(1, keepdim=True).float()
        batch = Batch(source, mask, present, item, source_names=named[0], target_names=named[1])
        with torch.inference_mode():
            images.append(made.synthesise(batch, Noise(0, item), trained.synth).float())
    torch.testing.assert_close(images[0], images[1][:, 2:3], rtol=0, atol=1e-3)


def test_a_completion_of_some_of_its_modalities_starts_from_the_starter(shipped_starters, brains):
    card = read_card(shipped_starters / "brain-mr-to-mr")
    some = Roles(("t1", "t2"), ("t1", "t2"), "asked")
    assert reason_against(card, brains, some) == ""


def _t1(channels):
    """A slice of noise within air in the first of some channels, which are air otherwise."""
    source = torch.full((1, channels, 1, 64, 64), BACKGROUND)
    source[:, :1, :, 12:52, 12:52] = torch.rand(40, 40, generator=torch.Generator().manual_seed(6))
    return source


@pytest.fixture
def begun(starter, facts):
    """begun(steps): the draft of a training from the starter, whose patches are whole slices."""

    def begin(steps=800, **changes):
        known = replace(facts, **changes)
        found, _ = find_starter(facts, roles_of(facts))
        draft = first_stage(known, roles_of(known), Size(64, 1), steps)
        begin_from(found, draft)
        return draft

    return begin


def test_a_starter_has_the_rate_of_random_weights_for_few_steps_and_half_of_it_for_more(begun):
    for steps, rate in {499: 2e-3, 500: 1e-3, 2000: 1e-3}.items():
        assert begun(steps=steps).tables["train"]["optimiser"]["lr"] == rate


def test_a_starter_adds_no_change_of_intensity_that_a_plan_lacks(begun):
    greys = {"gamma", "contrast", "remap", "invert", "bias", "blur_mm", "noise"}
    assert greys & begun().data["augment"].keys() == PARTS["grey"].keys()


def test_a_plan_from_a_starter_has_its_network(starter, begun):
    draft = begun(framed=False)
    tables, why = draft.tables, draft.why
    header = read_header(Run(starter).weights())
    # Trained on whole slices, a network answers to their border as it was padded.
    assert tables["net"] == {**header["recipe"]["net"], "border": "zeros"}
    assert "stack" not in tables["data"]
    assert tables["intensity"]["t2"] == header["recipe"]["intensity"]["t2"]
    assert tables["start_from"] == "starter:tiny"
    assert "starter:tiny" in why["intensity.t2"]


@pytest.fixture
def winner(monkeypatch):
    """winner(place): the entrant at this place wins races, which a starter trained for seconds may lose."""

    def wins(place):
        def trial(_, recipe, *__):
            return abs(place - (recipe.start_from is None)), 8

        monkeypatch.setattr(planner.Probe, "trial", trial)

    return wins


@slow
def test_train_auto_begins_from_the_starter_unless_it_is_switched_off(
    install, voxlate, prepared, tmp_path, winner
):
    folder = install(stripped=True)  # the small bodies are 32 mm wide
    winner(0)
    options = ("--data", prepared, "--minutes", 0.2, "--mode", "mean", "--set", "train.steps=1")
    command, run = ("train", "auto", *options, "--out"), Run(tmp_path / "auto")
    voxlate(*command, run.folder).done()
    head = run.recipe.read_text()
    assert "# --from-scratch: starter:tiny" in head
    assert "# start_from: starter:tiny" in head
    assert read_json(run.provenance)["recipe"]["start_from"] == "starter:tiny"
    voxlate(*command, run.folder).done()
    assert "start_from" not in voxlate(*command, tmp_path / "new", "--from-scratch").done().err
    own, begun = weights_of(folder), weights_of(run)
    assert own.keys() == begun.keys()
    far = max(float((own[name] - begun[name]).abs().max()) for name in own)
    assert far < 0.1


def test_random_weights_that_win_the_race_are_trained(install, prepared, winner):
    install(stripped=True)
    winner(1)
    made = planner.plan_training(prepared, **SHORT, mode="mean")
    assert made.recipe.start_from is None
    assert "starter:tiny" in made.why["start_from"]


@slow
def test_the_regression_of_a_plan_of_two_stages_begins_from_the_starter(install, prepared, winner):
    install(stripped=True)
    winner(0)
    made = planner.plan_training(prepared, **SHORT, mode="samples")
    stage, last = made.recipe.all_stages
    assert (stage.start_from, last.start_from) == ("starter:tiny", None)
    assert last.net != stage.net, (
        "samples begin from random weights of the network that the law prefers"
    )
