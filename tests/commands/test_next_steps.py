"""Every command that a command names as the next one works as it is printed, on cohorts of each kind."""

import re
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image

TRANSLATION = """
data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20] }
method = { kind = "regression" }
"""
COMPLETION = """
data = { source = ["t1", "t2"], target = ["t1", "t2"], patch = [1, 24, 20], allow_missing = true }
task = { kind = "complete", incomplete = true }
method = { kind = "diffusion" }
"""
RECIPE = """
title = "next"
intensity = { t1 = { kind = "window", low = 0, high = 1200 }, t2 = { kind = "window", low = 0, high = 1400 } }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 1, batch = 2, precision = "float32", workers = 0, validate_every = 0 }
synth = { sampler = "ddim", steps = 1 }
"""
COMMAND = re.compile(r"(?::|,)  voxlate (.+)$", re.MULTILINE)


def named(answer):
    """The commands that an answer names."""
    found = COMMAND.findall(answer.out)
    assert found, answer.out
    return found


@pytest.fixture
def follow(voxlate, tmp_path, monkeypatch):
    """Runs each command that an answer names in one folder, where nothing was before; gives their answers."""
    (tmp_path / "here").mkdir()

    def run(answer, **words):
        monkeypatch.chdir(tmp_path / "here")
        answers = []
        for command in named(answer):
            answers.append(voxlate(*(str(words.get(one, one)) for one in shlex.split(command))))
            assert answers[-1].code == 0, f"voxlate {command}: {answers[-1].err}"
        return answers

    return run


HELD_OUT = {4: "val", 5: "test"}


def split(cohort, **held_out):
    """Says in the cohort's own list which cases validate and test; by default case4 and case5."""
    named = {int(case.removeprefix("case")): name for case, name in held_out.items()} or HELD_OUT
    rows = [f"case{number},{named.get(number, 'train')}" for number in range(6)]
    (cohort / "cases.csv").write_text("\n".join(["case,split", *rows]) + "\n")


@pytest.fixture
def train(voxlate, cohort, tmp_path):
    """Prepares the cohort and trains one step on it; gives what both commands say."""

    def run(*layout, text=TRANSLATION, scans=cohort, options=()):
        recipe = tmp_path / "recipe.toml"
        recipe.write_text(text + RECIPE)
        voxlate("prepare", scans, "--out", tmp_path / "p", "--no-audit", *layout).done()
        paths = ("--data", tmp_path / "p", "--out", tmp_path / "r")
        answer = voxlate("train", recipe, *paths, *options).done()
        return answer

    return run


@pytest.fixture
def complete(train):
    """Trains a model that completes t1 and t2, where cases may lack one."""

    def run():
        return train(text=COMPLETION)

    return run


def test_a_translation_names_synth_and_that_names_the_scores(train, follow, cohort):
    split(cohort)
    (made,) = follow(train())
    assert named(made)[0].startswith("evaluate OUT --truth ")
    (scored,) = follow(made)
    assert scored.out.splitlines()[-1][0] in "✓?✗"


@pytest.mark.slow
def test_a_completion_with_whole_cases_is_scored_and_others_are_listed(complete, follow, cohort):
    split(cohort, case3="val", case4="val")
    (cohort / "case4" / "t1.nii.gz").unlink()
    (scored,) = follow(answer := complete())
    assert named(answer)[0].startswith("evaluate NEW --truth ")
    assert "left out case4: expected all of t1, t2, found no t1" in scored.err


@pytest.mark.slow
def test_a_completion_whose_cases_all_lack_something_is_not_told_to_score(complete, follow, cohort):
    split(cohort)
    for number in range(6):
        (cohort / f"case{number}" / ("t1.nii.gz" if number % 2 else "t2.nii.gz")).unlink()
    (made,) = follow(answer := complete())
    assert named(answer)[0].startswith("synth ")
    assert named(made) == ["report OUT"], "what was missing has no truth"
    follow(made)


@pytest.mark.slow
def test_whole_test_cases_are_scored_where_validation_cases_lack_something(
    complete, follow, cohort
):
    split(cohort)
    (cohort / "case4" / "t1.nii.gz").unlink()
    answer = complete()
    assert "--split val" in named(answer)[0], "the first of the two that can be made"
    follow(answer)


@pytest.mark.slow
@pytest.mark.parametrize("splits", [{"case5": "test"}, {"case9": "val"}])
def test_without_validation_patients_the_test_patients_or_all_are_made(
    train, follow, cohort, splits
):
    split(cohort, **splits)
    answer = train()
    assert ("--split test" in named(answer)[0]) == ("case5" in splits)
    follow(answer)


@pytest.mark.slow
def test_where_held_out_cases_lack_the_source_one_case_that_has_it_is_named(train, follow, cohort):
    split(cohort, case2="val", case3="val")
    (cohort / "case2" / "t1.nii.gz").unlink()
    answer = train()
    (made,) = follow(answer)
    assert "case3/t1.nii.gz" in named(answer)[0]
    assert named(made) == ["report OUT"]


@pytest.mark.slow
def test_the_layout_of_slices_is_part_of_the_next_command(voxlate, train, follow, tmp_path):
    draw = np.random.default_rng(0)
    for number in range(6):
        for name in ("t1", "t2"):
            path = tmp_path / "slices" / f"p{number}" / f"slice0_{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = np.pad(draw.integers(40, 255, (20, 16)), 2).astype(np.uint8)
            Image.fromarray(picture).save(path)
    layout = ("--pattern", "{patient}/{case}_{modality}.png")
    answer = train(*layout, scans=tmp_path / "slices")
    (made,) = follow(answer)
    assert "--pattern '{patient}/{case}_{modality}.png'" in named(answer)[0]
    follow(made)


@pytest.mark.slow
def test_a_manifest_outside_of_its_scans_and_a_chosen_file_are_part_of_the_next_commands(
    train, follow, cohort, tmp_path
):
    (tmp_path / "lists").mkdir()
    rows = [
        f"case{n},{HELD_OUT.get(n, 'train')},../cohort/case{n}/t1.nii.gz,../cohort/case{n}/t2.nii.gz"
        for n in range(6)
    ]
    table = tmp_path / "lists" / "cohort.csv"
    table.write_text("\n".join(["case,split,t1,t2", *rows]) + "\n")
    answer = train("--allow-outside", "--exclude", "case0", scans=table)
    assert "--allow-outside --exclude case0" in named(answer)[0]
    (made,) = follow(answer)
    assert "--allow-outside --exclude case0" in named(made)[0]
    follow(made)


@pytest.mark.slow
def test_calibrate_names_synth_as_it_was_calibrated(
    voxlate, train, follow, cohort, small_head, tmp_path
):
    train()
    for number in range(2):
        small_head(tmp_path / "others" / f"new{number}", 100 + number)
    answer = voxlate("calibrate", tmp_path / "r", tmp_path / "others").done()
    follow(answer, NEW=tmp_path / "others")


@pytest.mark.slow
def test_a_run_whose_prepared_cohort_is_gone_names_a_command_for_any_scans(
    voxlate, train, follow, cohort, tmp_path
):
    train()
    again = ("train", tmp_path / "recipe.toml", "--data", tmp_path / "p", "--out", tmp_path / "r")
    provenance = (tmp_path / "r" / "provenance.json").read_text()
    assert '"../p"' in provenance
    assert voxlate(*again).code == 0
    from voxlate.commands.api.next_steps import after_training
    from voxlate.training.recipe import read

    shutil.rmtree(tmp_path / "p")
    assert after_training(
        tmp_path / "r", read(str(tmp_path / "recipe.toml")).data, False
    ).startswith("synth ")


def test_prepare_names_no_training_that_cannot_be_planned(voxlate, cohort, tmp_path):
    answer = voxlate(
        "prepare", cohort, "--modality", "t1", "--out", tmp_path / "p", "--no-audit"
    ).done()
    assert "Next:" not in answer.out
    last = answer.out.splitlines()[-1]
    assert "No training can be planned: " in last
    assert "expected two modalities, a source and a target, found t1 alone" in last


@pytest.mark.slow
def test_the_way_from_a_phantom_to_scores_works_as_each_command_names_the_next(
    voxlate, follow, tmp_path
):
    size = ("--cases", 8, "--size", 32, 32, 12, "--modality", "t1", "--modality", "ct")
    answer = voxlate("phantom", "--out", tmp_path / "c", *size)
    (prepared,) = follow(answer)
    command = named(prepared)[0]
    place = tmp_path / "here"
    short = ("--minutes", "0.4", "--memory", "2GB", "--mode", "mean", "--device", "cpu")
    plan = voxlate("plan", place / "PREPARED", "--out", tmp_path / "plan.toml", *short).done()
    (trained,) = follow(plan)
    (made,) = follow(trained)
    (scored,) = follow(made)
    assert scored.out.splitlines()[-1][0] in "✓?✗"
    auto = voxlate(
        *shlex.split(command)[:2], "--data", place / "PREPARED", "--out", tmp_path / "auto", *short
    ).done()
    (place / "OUT").rename(place / "BEFORE")
    follow(auto)
