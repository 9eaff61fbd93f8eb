"""Every command that a command names as the next one works as it is printed, on cohorts of each kind."""

import re
import shutil

import pytest

from rows import slow

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
def follow(typed):
    """Runs the commands that an answer names; gives their answers."""

    def run(answer, NEW="NEW"):
        answers = [typed(command.replace("NEW", NEW)) for command in named(answer)]
        assert all(one.code == 0 for one in answers), answers
        return answers

    return run


HELD_OUT = {"case4": "val", "case5": "test"}


def split(cohort, **held_out):
    """Says in the cohort's own list which cases validate and test; by default case4 and case5."""
    splits = {f"case{number}": "train" for number in range(6)} | (held_out or HELD_OUT)
    rows = [f"{case},{splits[case]}" for case in sorted(splits)[:6]]
    (cohort / "cases.csv").write_text("\n".join(["case,split", *rows, ""]))


@pytest.fixture
def train(typed, cohort, tmp_path):
    """Prepares the cohort and trains one step on it; gives what the training says."""

    def run(layout="", text=TRANSLATION, scans="cohort"):
        (tmp_path / "recipe.toml").write_text(text + RECIPE)
        typed(f"prepare {scans} --out p --no-audit {layout}").done()
        return typed("train recipe.toml --data p --out r").done()

    return run


def test_a_translation_names_synth_and_that_names_the_scores(train, follow, cohort):
    split(cohort)
    (made,) = follow(train())
    assert named(made)[0].startswith("evaluate OUT --truth ")
    (scored,) = follow(made)
    assert scored.out.splitlines()[-2].startswith("MAE ")


COMPLETED = "synth r .*--missing t1 --out OUT"
ROWS = [  # recipe, splits, files that are absent, the begin of what train names, and of what that names
    (COMPLETION, {"case3": "val", "case4": "val"}, ["case4/t1"], COMPLETED, "evaluate OUT"),
    (
        COMPLETION,
        HELD_OUT,
        [f"case{k}/t{1 + (k + 1) % 2}" for k in range(6)],
        "synth ",
        "report OUT",
    ),
    (COMPLETION, HELD_OUT, ["case4/t1"], ".*--split val", "report OUT"),
    (TRANSLATION, {"case5": "test"}, [], "synth.*--split test", "evaluate OUT"),
    (TRANSLATION, {"case9": "val"}, [], "synth r cohort (?!.*--split)", "evaluate OUT"),
]


@slow
@pytest.mark.parametrize(("text", "splits", "absent", "first", "second"), ROWS)
def test_what_train_names_fits_the_cases_that_are_held_out(
    train, follow, cohort, text, splits, absent, first, second
):
    split(cohort, **splits)
    for scan in absent:
        (cohort / f"{scan}.nii.gz").unlink()
    (made,) = follow(answer := train(text=text))
    assert re.match(first, named(answer)[0]), named(answer)
    if second:
        assert named(made)[0].startswith(second)
        follow(made)


@slow
def test_a_manifest_outside_of_its_scans_and_a_chosen_file_are_part_of_the_next_commands(
    train, follow, cohort, tmp_path
):
    rows = [
        f"{case},{HELD_OUT.get(case, 'train')},../cohort/{case}/t1.nii.gz,../cohort/{case}/t2.nii.gz"
        for case in (f"case{number}" for number in range(6))
    ]
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "cohort.csv").write_text("\n".join(["case,split,t1,t2", *rows, ""]))
    options = "--allow-outside --exclude case0"
    (made,) = follow(answer := train(options, scans="lists/cohort.csv"))
    assert options in named(answer)[0]
    assert options in named(made)[0]
    follow(made)


@slow
def test_calibrate_names_synth_as_it_was_calibrated_and_train_without_its_cohort_any_scans(
    typed, train, follow, cohort, small_head, tmp_path
):
    from voxlate.commands.api.next_steps import after_training
    from voxlate.training.recipe import read

    train()
    for number in range(2):
        small_head(tmp_path / "others" / f"new{number}", 100 + number)
    follow(typed("calibrate r others").done(), NEW="others")
    assert '"../p"' in (tmp_path / "r" / "provenance.json").read_text()
    assert typed("train recipe.toml --data p --out r").code == 0
    shutil.rmtree(tmp_path / "p")
    data = read(str(tmp_path / "recipe.toml")).data
    assert after_training(tmp_path / "r", data, False).startswith("synth ")


def test_prepare_names_no_training_that_cannot_be_planned(typed, cohort):
    answer = typed("prepare cohort --modalities t1 --out p --no-audit").done()
    assert "Next:" not in answer.out
    last = answer.out.splitlines()[-1]
    assert "No training can be planned: " in last


@slow
def test_the_way_from_a_phantom_to_scores_works_as_each_command_names_the_next(
    typed, follow, tmp_path
):
    answer = typed("phantom --out c --cases 8 --size 32 32 12 --modalities t1 --modalities ct")
    (prepared,) = follow(answer)
    command, *_ = named(prepared)[0].split(" --")
    short = "--minutes 0.4 --memory 2GB --mode mean --device cpu"
    plan = typed(f"plan PREPARED --out plan.toml {short}").done()
    (trained,) = follow(plan)
    (made,) = follow(trained)
    (scored,) = follow(made)
    assert scored.out.splitlines()[-2].startswith("MAE ")
    auto = typed(f"{command} --data PREPARED --out auto {short}").done()
    (tmp_path / "OUT").rename(tmp_path / "BEFORE")
    follow(auto)
