"""Plans by the command line, on tiny cohorts."""

import time
import tomllib
from itertools import product, starmap
from typing import ClassVar

import pytest

from preparing import prepare
from refusals import refuses
from rows import every_row, slow
from scans import change_scan, hold_out_the_last
from voxlate.scans.cases.prepared import open_cohort
from voxlate.training import recipe
from voxlate.training.planning import planner, rules
from voxlate.training.planning.cohort_facts import (
    CohortFacts,
    cohort_facts,
)
from voxlate.training.planning.planner import WIDTHS, plan_training
from voxlate.training.planning.probe import (
    FILLED,
    Probe,
    relative_error,
)
from voxlate.training.planning.rules import Size
from voxlate.training.train import train

SHORT = ("--minutes", 0.2, "--set", "train.steps=4")  # planned, and cut


LIMITS = {"minutes": 0.2, "memory": 2**33}


def test_a_plan_is_an_ordinary_recipe_that_says_why_and_replaces_no_file(
    voxlate, prepared, tmp_path
):
    path = tmp_path / "plan.toml"
    command = ("plan", prepared, "--minutes", 0.3, "--mode", "samples", "--out", path)
    answer = voxlate(*command).done()
    text, made = path.read_text(), recipe.read(str(path))
    assert (made.data.source, made.data.target, made.data.patch) == (["t1"], ["t2"], (1, 24, 24))
    assert [stage.name for stage in made.all_stages] == ["regression", "final"]
    keys = ("data.source", "data.patch", "data.augment", "intensity.t1", "net.width")
    for key in keys:
        assert f"# {key}: " in text
    for words in ("reason", "data.patch", "1 24 24"):
        assert words in answer.out
    assert "patch = [1, 24, 24]" in text  # lists stand on a line
    path.write_text("mine")
    assert voxlate(*command).code == 2
    assert path.read_text() == "mine"


def test_what_a_plan_predicts_lies_within_what_it_may_take_and_a_single_step_is_timed_too(prepared):
    planned = plan_training(prepared, **LIMITS)
    assert 0 < planned.seconds <= 12
    assert planned.memory <= 2**33
    assert "start_from" not in planned.text, "no starter is installed"
    made = planned.change({"train.steps": 1}).recipe
    assert Probe(open_cohort(prepared), 1).measure(made, 0) > 0


@slow
def test_train_auto_ends_within_a_tenth_of_its_minutes(voxlate, prepared, tmp_path):
    begun = time.monotonic()
    options = ("--data", prepared, "--out", tmp_path / "run", "--minutes", 2)
    assert voxlate("train", "auto", *options).code == 0
    assert 108 < time.monotonic() - begun < 132


def test_keys_of_a_plan_are_changed_by_set_once_and_its_run_is_resumed_as_it_was_planned(
    voxlate, prepared, tmp_path
):
    run = tmp_path / "run"
    options = ("train", "auto", "--data", prepared, "--out", run, "--mode", "mean")
    answer = voxlate(*options, "--minutes", 0.2, "--set", "train.steps=2").done()
    before = (run / "recipe.toml").read_text()
    assert tomllib.loads(before)["train"]["steps"] == 2
    assert "Do not use: higher for" in answer.out, "two steps teach nothing"
    said = voxlate(*options, *SHORT, "--set", "train.batch=2").done().said
    assert "is resumed as it was planned" in said
    assert (run / "recipe.toml").read_text() == before
    assert voxlate(*options, *SHORT, "--fold", 1).code == 2
    (run / "provenance.json").rename(tmp_path / "provenance.json")
    for left in (run / "weights.safetensors", run / "state.pt"):
        left.unlink()
    assert voxlate(*options, *SHORT).code == 2, "no recipe of the user is overwritten"
    assert (run / "recipe.toml").read_text() == before


@pytest.mark.parametrize("mode", ["mean", None])
def test_settings_and_options_of_no_recipe_are_refused_before_a_step_is_timed(
    voxlate, prepared, tmp_path, monkeypatch, mode
):
    def probe(*_):
        raise LookupError

    monkeypatch.setattr("voxlate.training.planning.planner.Probe", probe)
    run = tmp_path / "run"
    options = ("train", "auto", "--data", prepared, "--out", run)
    options += ("--mode", mode) if mode else ()
    wrong = ("train.step=4", "net.widht=8", "train.steps=many", "stages.regression.net.widht=8")
    settings = (("--set", change) for change in wrong)
    others = (("--fold", 7), ("--device", "tpu"), ("--reuse", tmp_path / "none"))
    for given in (*settings, *others):
        assert voxlate(*options, *given).code == 2, given
        assert not (run / "recipe.toml").exists()
    accepted = ("method.ssim=0.2", "net.width=8", "stages.regression.method.ssim=0.2")
    for change in accepted[:2] if mode else accepted:
        assert voxlate(*options, "--set", change).code == 1, "it comes to the probe"


@every_row(
    "options, words",
    [
        ("--minutes 0", "at least 0.01"),
        ("--memory 1MB", "expected enough for the smallest network, found 0.00 GiB"),
        ("--memory much", "expected a size such as 8GB, found 'much'"),
        ("--source t1 --target ct", "found 'ct'"),
        ("--target t2", "expected --source and --target together"),
        ("--source t1 --target t1", "expected two modalities or more"),
    ],
)
def test_a_plan_that_cannot_be_met_is_refused_in_one_sentence(
    voxlate, prepared, tmp_path, monkeypatch, options, words
):
    monkeypatch.chdir(tmp_path)
    answer = voxlate("plan", prepared, *options.split())
    assert words in answer.refusal
    assert not (tmp_path / "plan.toml").exists()


def test_one_patient_is_too_few(voxlate, small_head, tmp_path):
    small_head(tmp_path / "scans/one", 0)
    voxlate("prepare", tmp_path / "scans", "--out", tmp_path / "ready")
    answer = voxlate("plan", tmp_path / "ready", "--out", tmp_path / "plan.toml")
    assert "expected two patients or more" in answer.refusal


def test_a_method_of_pairs_refuses_scans_that_lie_apart(voxlate, prepared, tiny, tmp_path):
    options = ("--out", tmp_path / "run", "--set", "data.apart=true")
    refusal = voxlate("train", tiny, "--data", prepared, *options).sentence
    assert "expected data.apart = false for a method that learns from pairs" in refusal


class Clockwork(Probe):
    """A probe that takes no time, on a machine whose steps cost what `step_seconds` says."""

    probe_seconds = 0.0
    tried: ClassVar[list[Size]] = []

    def measure(self, recipe, stage):
        size = Size(recipe.net.width, recipe.net.patch)
        self.tried.append(size)
        fits = 2**20 * size.load <= self.memory_bytes
        return step_seconds(size) * (1 + 3 * stage) if fits else None


def step_seconds(size):
    """Of a step on Clockwork's machine; four times as fast with a stem of two times the size."""
    return 5e-6 * (size.width / size.stem) ** 2


@pytest.fixture
def clockwork(prepared, monkeypatch):
    """clockwork(minutes, **options): a plan of one answer that probes a machine whose speed is known."""
    monkeypatch.setattr("voxlate.training.planning.planner.Probe", Clockwork)
    monkeypatch.setattr(Clockwork, "tried", [])

    def plan(minutes, memory_bytes=2**33, mode="mean"):
        return plan_training(prepared, minutes=minutes, memory=memory_bytes, mode=mode)

    return plan


@pytest.fixture
def speed(monkeypatch):
    """speed(step_seconds): the machine becomes another one."""
    return lambda step_seconds: monkeypatch.setitem(globals(), "step_seconds", step_seconds)


@pytest.fixture
def any_length(monkeypatch):
    """However long patients are seen, they are not learned by heart."""
    monkeypatch.setattr("voxlate.training.planning.planner.most_steps", lambda *_, **__: 10**9)


@every_row("minutes, largest", [(0.2, 500), (1, 500), (2, 500), (60, 500), (60, 80)])
def test_the_network_that_is_taken_fits_in_memory_and_has_about_the_least_predicted_error(
    prepared, clockwork, any_length, minutes, largest
):
    """The law of the cost of a step is not that of this machine: three timed steps decide."""
    Clockwork.tried.clear()
    made = clockwork(minutes, largest * 2**20)
    facts = cohort_facts(open_cohort(prepared))

    def error(size):
        steps = int(minutes * 60 * 0.96 / step_seconds(size))
        return relative_error(size, facts.pixel_mm, steps)

    every = starmap(Size, product(WIDTHS, rules.stems(facts)))
    least = min(error(size) for size in every if size.load <= largest)
    net, steps = made.tables["net"], made.tables["train"]["steps"]
    taken = Size(net["width"], net.get("patch", 1))
    assert taken.load <= largest
    assert error(taken) < 1.05 * least
    assert steps == int(minutes * 60 * 0.96 / step_seconds(taken))
    assert len(Clockwork.tried) <= 6
    assert f"{taken} gets" in made.why["net.width"]


def test_time_beyond_what_few_patients_are_worth_is_filled_up_to_a_quarter(clockwork, monkeypatch):
    for most, filled in ((10**9, True), (10, False)):
        monkeypatch.setattr(planner, "most_steps", lambda *_, most=most, **__: most)
        made = clockwork(0.25)
        assert made.tables["train"]["steps"] <= FILLED * most
        assert (made.seconds > 0.9 * 0.96 * 15) == filled


def test_few_patients_are_not_learned_by_heart(clockwork):
    made = clockwork(60, mode=None)
    items = 25 * 24  # passes over the 24 slices of four patients
    first = made.tables["stages"][0]["train"]
    assert first["steps"] * first["batch"] == items
    assert made.tables["train"]["steps"] * rules.BATCH == 2 * items
    assert made.tables["net"]["width"] == 128  # what time is left goes into width
    assert "overfit" in made.why["stages.regression.net.width"]


def test_time_is_shared_between_the_two_answers(clockwork, any_length):
    made = clockwork(1, mode=None)
    budgets = made.budgets
    first, second = budgets["regression"].seconds, budgets["final"].seconds
    assert first / (first + second) == pytest.approx(0.75, abs=0.01)


def test_a_time_too_short_for_samples_plans_the_mean_alone_and_says_from_when_on_they_pay(
    clockwork, any_length, speed
):
    speed(lambda size: 0.1)
    short = clockwork(1, mode=None)
    assert "stages" not in short.tables
    # all of the minute, less 4 %
    assert short.tables["train"]["steps"] == pytest.approx(576, abs=1)
    assert clockwork(1, mode="both").tables["method"] == short.tables["method"]
    minutes = int(short.why["--mode"].split("--minutes ")[1])
    assert len(clockwork(minutes, mode=None).recipe.stages) == 1
    assert len(clockwork(1, mode="samples").recipe.stages) == 1, "asked for"


def rescaled(scans, cases, change, name="ct"):
    """Rewrite the CT, or another scan, of cases of these numbers as change(voxels)."""
    for number in cases:
        change_scan(scans / f"case{number}/{name}.nii.gz", change)


@pytest.fixture
def ct_cohort(tmp_path, small_head):
    """Six cases of T1 and CT, of which the last validates."""
    scans = tmp_path / "scans"
    for number in range(6):
        small_head(scans / f"case{number}", number, modalities=("t1", "ct"))
    hold_out_the_last(scans)
    return scans


def test_hounsfield_units_on_several_scales_are_refused(ct_cohort, tmp_path):
    rescaled(ct_cohort, range(1, 4), lambda ct: ct + 1024)
    prepare(ct_cohort, tmp_path / "ready", audit=False)
    with refuses("case1, case2, case3 of 5"):
        plan_training(tmp_path / "ready", **LIMITS)


def test_mr_targets_of_which_some_are_z_scored_are_refused(ct_cohort, tmp_path, read_tiny):
    rescaled(ct_cohort, [1, 2], lambda t1: t1 / 50 - 1, name="t1")
    ready = prepare(ct_cohort, tmp_path / "ready", audit=False, workers=1).folder
    maps = dict.fromkeys(("intensity.t1", "intensity.ct"), '{kind = "percentile"}')
    made = read_tiny({"data.source": '["ct"]', "data.target": '["t1"]'} | maps)
    with refuses("found 2 of 5 training cases z-scored"):
        train(made, ready, tmp_path / "run")


def test_cases_that_teach_nothing_decide_nothing(tmp_path, small_head):
    """Those without a T2 have a z-scored T1, with air below 0: the plan and the weights know the others alone."""
    scans = tmp_path / "scans"
    for number in range(8):
        modalities = ("t1", "t2") if number > 4 else ["t1"]
        small_head(scans / f"case{number}", number, modalities=modalities)
    rescaled(scans, range(5), lambda t1: (t1 - 600) / 100, name="t1")
    rows = [f"case{k},case{k},{'val' if k == 7 else 'train'}" for k in range(8)]
    (scans / "cases.csv").write_text("\n".join(["case,patient,split", *rows]))
    prepare(scans, tmp_path / "ready", audit=False)
    made = plan_training(tmp_path / "ready", source=("t1",), target=("t2",), **LIMITS, mode="mean")
    assert made.tables["intensity"]["t1"].get("floor") == 0
    assert "of 2 patients" in made.why["data.augment"]


@every_row("minutes, share", [(3, 7), (0.5, 1)])
def test_less_than_a_pass_trains_on_a_part_of_the_slices_and_says_so(
    clockwork, speed, monkeypatch, minutes, share
):
    """A step of 2 slices takes 1 s: 172 or 28 steps of the about 5,000 slices that contain body."""
    speed(lambda size: 1)
    monkeypatch.setattr(CohortFacts, "slices", 10_000)
    assert f"about {share}% of the slices" in clockwork(minutes).why["--minutes"]
