"""Every command that a command names as the next one works as it is printed, with the user's scans for COHORT and NEW."""

import re

import pytest

from rows import slow

RECIPE = """
title = "next"
data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20] }
method = { kind = "regression" }
intensity = { t1 = { kind = "window", low = 0, high = 1200 }, t2 = { kind = "window", low = 0, high = 1400 } }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 1, batch = 2, precision = "float32", workers = 0, validate_every = 0 }
synth = { sampler = "ddim", steps = 1 }
"""
COMMAND = re.compile(r"(?::|,)  voxlate (.+)$", re.MULTILINE)


def named(answer):
    """The command that an answer names."""
    (found,) = COMMAND.findall(answer.out)
    return found


@pytest.fixture
def follow(typed):
    """Runs the command that an answer names; gives its answer."""
    return lambda answer, scans="cohort": typed(
        re.sub(r"\b(NEW|COHORT)\b", scans, named(answer))
    ).done()


@pytest.fixture
def trained(typed, cohort, tmp_path):
    """What the training of one step says."""
    (tmp_path / "recipe.toml").write_text(RECIPE)
    typed("prepare cohort --out p --no-audit").done()
    return typed("train recipe.toml --data p --out r").done()


def test_a_training_names_synth_and_that_names_the_scores(trained, follow):
    made = follow(trained)
    assert named(made).startswith("evaluate OUT --truth ")
    assert follow(made).out.splitlines()[-2].startswith("MAE ")


@slow
def test_a_manifest_outside_of_its_scans_and_a_chosen_file_are_part_of_the_next_command(
    typed, trained, follow, tmp_path
):
    rows = [f"case{k},../cohort/case{k}/t1.nii.gz,../cohort/case{k}/t2.nii.gz" for k in range(6)]
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "cohort.csv").write_text("\n".join(["case,t1,t2", *rows, ""]))
    options = "--allow-outside --exclude case0"
    made = typed(f"synth r lists/cohort.csv {options} --out OUT").done()
    assert options in named(made)
    follow(made)


@slow
def test_calibrate_names_synth_as_it_was_calibrated(typed, trained, follow, small_head, tmp_path):
    for number in range(2):
        small_head(tmp_path / "others" / f"new{number}", 100 + number)
    follow(typed("calibrate r others").done(), "others")


@slow
def test_the_way_from_a_phantom_to_scores_works_as_each_command_names_the_next(typed, follow):
    answer = typed("phantom --out c --cases 8 --size 32 32 12 --modalities t1 --modalities ct")
    command, *_ = named(follow(answer)).split(" --")
    short = "--minutes 0.4 --memory 2GB --mode mean --device cpu"
    made = follow(follow(typed(f"plan PREPARED --out plan.toml {short}").done()), "c")
    assert follow(made).out.splitlines()[-2].startswith("MAE ")
    typed(f"{command} --data PREPARED --out auto {short}").done()
