"""Lengths of a planned training are corrected once; a corrected recipe trained anew gives the same weights."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rows import every_row
from voxlate import recipe
from voxlate.planning.pace import SPARE, Paced, PaceRecord, read_pace
from voxlate.planning.plan import begun_recipe
from voxlate.planning.rules import HELD
from voxlate.recipe import Recipe
from voxlate.system.errors import BadInput, Stopped
from voxlate.system.files import read_json, write_json
from voxlate.training.run import Run
from voxlate.training.train import Beginning, train

STEPS = 20
OF_STAGE = 'train = {{ steps = {0}, batch = 2, precision = "float32", workers = 0, save_every = 100, ema = 0.5, '
OF_STAGE += "validate_every = 0, log_every = 5, optimiser = {{ warm_up = 2, hold = {1} }} }}"
TWO = f"""
title = "two stages, as a plan has them"
task = {{ kind = "residual", predictor = "regression" }}
data = {{ source = ["t1"], target = ["t2"], patch = [1, 24, 20] }}
intensity = {{ t1 = {{ kind = "window", low = 0, high = 1200 }}, t2 = {{ kind = "window", low = 0, high = 1400 }} }}
method = {{ kind = "diffusion" }}
net = {{ kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }}
{OF_STAGE.format(STEPS, HELD)}
synth = {{ sampler = "ddim", steps = 2 }}

[[stages]]
name = "regression"
method = {{ kind = "regression" }}
net = {{ kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }}
{OF_STAGE.format(STEPS, HELD)}
"""
STEP_SECONDS, MOST_STEPS = {"regression": 0.25, "final": 0.5}, {"regression": 30, "final": 40}


@pytest.fixture(scope="module")
def planned(tmp_path_factory) -> Recipe:
    path = tmp_path_factory.mktemp("planned") / "two.toml"
    path.write_text(TWO)
    return recipe.read(str(path))


def steps_of(one: Recipe) -> list[int]:
    return [stage.train.steps for stage in one.all_stages]


def paced(seconds: float, *, now: float = 0.0, most: int = 10**6, say=lambda _: None) -> Paced:
    """A pace whose probe measured 1 s for a step of either stage, with so many seconds until the deadline."""
    return Paced(
        seconds,
        {"regression": 1.0, "final": 1.0},
        {"regression": most, "final": most},
        say,
        lambda: now,
    )


def test_steps_follow_the_speed_so_that_the_training_ends_at_its_deadline(planned):
    assert paced(38)(planned, "regression", 2, 1.0) is None  # 18 and 20 steps of a second are left
    slower = paced(38)(planned, "regression", 2, 1.5)
    assert steps_of(slower) == [14, 13]  # 2 are done; 12 and 13 of 1.5 s are 37.5 s
    faster = paced(38)(planned, "regression", 2, 0.5)
    assert steps_of(faster) == [38, 40]  # 36 and 40 of half a second are 38 s
    assert steps_of(paced(9)(planned, "final", 2, 0.25)) == [20, 38]  # the last stage alone


def test_steps_are_halved_at_most_and_never_more_than_the_patients_are_worth(planned):
    assert steps_of(paced(1)(planned, "regression", 2, 1.0)) == [10, 10]
    assert steps_of(paced(100)(planned, "regression", 2, 1.0)) == [49, 52]
    assert steps_of(paced(100, most=30)(planned, "regression", 2, 1.0)) == [30, 30]


def test_a_stage_of_a_single_step_keeps_it(tmp_path):
    (tmp_path / "two.toml").write_text(TWO)
    brief = recipe.read(str(tmp_path / "two.toml"), {"train.steps": "1"})
    assert steps_of(paced(1)(brief, "regression", 2, 1.0)) == [10, 1]


def test_a_change_is_said_with_both_speeds_and_both_lengths(planned):
    said: list[str] = []
    paced(38, say=lambda one: said.append(str(one)))(planned, "regression", 2, 1.5)
    assert "takes 1.500 s, the probe measured 1.000 s" in said[0]
    assert "regression 20 → 14, final 20 → 13" in said[0]


def weights(run: Path) -> dict[str, torch.Tensor]:
    files = (Run(run).weights("regression"), Run(run).weights())
    return {f"{file.name} {name}": one for file in files for name, one in load_file(file).items()}


def correct(one: Recipe, stage: str, step: int, _: float) -> Recipe | None:
    """Corrects both stages, as if every step took 1 s."""
    return paced(30 if stage == "regression" else 25)(one, stage, step, 1.0)


@pytest.fixture(scope="module")
def corrected(planned, prepared_once, tmp_path_factory) -> Run:
    """A run of two stages whose lengths were corrected from 20 and 20 to 16 and 27 steps."""
    folder = tmp_path_factory.mktemp("corrected") / "run"
    return train(planned, prepared_once, folder, device="cpu", beginning=Beginning(pace=correct))


def assert_same_weights(run: Path, other: Path) -> None:
    own, theirs = weights(run), weights(other)
    assert all(torch.equal(own[name], theirs[name]) for name in own)


def test_a_corrected_recipe_trained_anew_gives_the_same_weights(corrected, prepared, tmp_path):
    chosen, _ = begun_recipe(corrected.folder)
    assert steps_of(chosen) == steps_of(recipe.read(str(corrected.recipe))) == [16, 27]
    assert read_json(corrected.provenance)["paced"]["regression"]["steps_before"] == STEPS
    train(chosen, prepared, tmp_path / "anew", device="cpu")
    assert_same_weights(corrected.folder, tmp_path / "anew")


def test_a_training_stopped_after_its_correction_resumes_to_the_same_weights(
    planned, corrected, prepared, tmp_path
):
    asked: list[tuple[str, int]] = []

    def pace(one: Recipe, stage: str, step: int, seconds: float) -> Recipe | None:
        asked.append((stage, step))
        return correct(one, stage, step, seconds)

    def stop(stage: str, done: int, *_) -> None:
        if (stage, done) == ("final", 3):
            os.kill(os.getpid(), signal.SIGTERM)

    out, options = tmp_path / "parts", {"device": "cpu", "beginning": Beginning(pace=pace)}
    with pytest.raises(Stopped):
        train(planned, prepared, out, progress=stop, **options)
    chosen, _ = begun_recipe(out)
    train(chosen, prepared, out, **options)
    assert asked == [("regression", 2), ("final", 2)], "each stage is corrected once"
    assert_same_weights(corrected.folder, out)


def test_an_edited_recipe_of_a_corrected_run_is_refused_and_one_of_before_is_written_again(
    corrected, tmp_path
):
    run = Run(shutil.copytree(corrected.folder, tmp_path / "run"))
    after = run.recipe.read_text()
    run.recipe.write_text(
        after.replace("steps = 16", f"steps = {STEPS}")
    )  # as where it was stopped between the files
    assert steps_of(begun_recipe(run.folder)[0]) == [16, 27]
    assert steps_of(recipe.read(str(run.recipe))) == [16, 27]
    run.recipe.write_text(after.replace("seed = 0", "seed = 5"))
    with pytest.raises(
        BadInput, match="expected the recipe that this run began with, found an edited one"
    ):
        begun_recipe(run.folder)


def test_a_machine_that_is_too_slow_for_the_fewest_steps_is_said_loudly(planned):
    said = []
    assert steps_of(
        paced(38, say=lambda one: said.append(str(one)))(planned, "regression", 2, 20.0)
    ) == [10, 10]
    _, late = said
    assert "TOO SLOW FOR THE PLAN" in late
    assert "take 6 more minutes" in late  # 8 and 10 steps of 20 s
    paced(38, say=lambda one: said.append(str(one)))(planned, "regression", 2, 1.5)
    assert len(said) == 3


def test_a_resumed_run_keeps_the_pace_of_its_plan_less_what_it_used(planned, tmp_path):
    PaceRecord(
        minutes=2, probed_seconds=10, step_seconds=STEP_SECONDS, most_steps=MOST_STEPS
    ).write(tmp_path)
    Run(tmp_path).log.write_text(
        '{"stage": "regression", "step": 5, "seconds": 20.0}\n{"stage": "regression", "step": 9, "seconds": 30.0}\n'
        '{"stage": "final", "step": 1, "seconds": 5.0}\n{"stage": "final", "st'  # cut short by a kill
    )
    kept = read_pace(tmp_path, planned)
    assert kept.deadline - time.monotonic() == pytest.approx(120 * (1 - SPARE / 2) - 10 - 35, abs=1)
    assert (kept.step_seconds, kept.most) == (STEP_SECONDS, MOST_STEPS)


@every_row(
    "change",
    [
        {"minutes": -1},
        {"minutes": "2"},
        {"step_seconds": {"final": "slow"}},
        {"step_seconds": {"final": 0.5}},
        {"most_steps": {"regression": 40, "other": 40}},
        {"most_steps": {"regression": 40, "final": 40.5}},
        {"more": 1},
    ],
)
def test_a_kept_plan_of_another_form_or_of_other_stages_is_refused(planned, tmp_path, change):
    whole = {"minutes": 2.0, "probed_seconds": 1.0}
    whole |= {"step_seconds": STEP_SECONDS, "most_steps": MOST_STEPS}
    assert read_pace(tmp_path, planned) is None, "the lengths were set by hand"
    write_json(Run(tmp_path).pace, whole)
    assert read_pace(tmp_path, planned) is not None
    write_json(Run(tmp_path).pace, whole | change)
    with pytest.raises(
        BadInput, match=r"plan\.json: expected the speed and steps of a plan as voxlate writes it"
    ):
        read_pace(tmp_path, planned)
