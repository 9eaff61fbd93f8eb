"""Lengths of a planned training are corrected; a corrected recipe trained anew gives the same weights."""

import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w

from refusals import refuses
from rows import every_row, slow
from trainings import recipe_of_text, same_weights
from voxlate.base.errors import Stopped
from voxlate.base.files import read_json, write_json
from voxlate.training import recipe
from voxlate.training.planning.pace import SPARE, Paced, PaceRecord, read_pace
from voxlate.training.planning.plan import begun_recipe
from voxlate.training.planning.probe import quiet_pace
from voxlate.training.planning.rules import HELD
from voxlate.training.recipe import with_trainings
from voxlate.training.recipe.training_settings import Training
from voxlate.training.run import Run
from voxlate.training.train import Beginning, train

STEPS = 20
OF_STAGE = 'train = {{ steps = {0}, batch = 2, precision = "float32", workers = 0, ema = 0.5, '
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
RECORD = {"minutes": 2, "probed_seconds": 10}
RECORD |= {"step_seconds": STEP_SECONDS, "most_steps": MOST_STEPS}


@pytest.fixture(scope="module")
def planned():
    return recipe_of_text(TWO)


def steps_of(one):
    return [stage.train.steps for stage in one.all_stages]


def paced(seconds, most=10**6, fewest=None, say=lambda _: None):
    """A pace whose probe measured 1 s for a step of either stage, with so many seconds until the deadline."""
    stages = ("regression", "final")
    measured, limits = (dict.fromkeys(stages, number) for number in (1.0, most))
    return Paced(seconds, measured, limits, fewest or {}, say, lambda: 0.0)


@every_row(
    "seconds, most, stage, done, step_seconds, lengths",
    [
        (38, 10**6, "regression", 2, 1.0, None),  # 18 and 20 steps of a second are left
        (38, 10**6, "regression", 2, 1.5, [14, 13]),  # 2 are done; 12 and 13 of 1.5 s are 37.5 s
        (38, 10**6, "regression", 2, 0.5, [38, 40]),  # 36 and 40 of half a second are 38 s
        (9, 10**6, "final", 2, 0.25, [20, 38]),  # the last stage alone
        # a quarter of the remaining steps at least: 2 + 18 / 4, 20 / 4
        (1, 10**6, "regression", 2, 1.0, [6, 5]),
        (100, 10**6, "regression", 2, 1.0, [49, 52]),
        (100, 30, "regression", 2, 1.0, [30, 30]),  # what the patients are worth
        (0, 10**6, "final", 19, 1.0, None),  # a stage ends with a step, not before one
    ],
)
def test_steps_follow_the_speed_within_limits_so_that_the_training_ends_at_its_deadline(
    planned, seconds, most, stage, done, step_seconds, lengths
):
    corrected = paced(seconds, most)(planned, stage, done, step_seconds)
    assert (corrected and steps_of(corrected)) == lengths


def test_a_pace_counts_half_beside_those_before_it(planned):
    pace = paced(38)
    assert pace(planned, "regression", 2, 1.0) is None
    assert steps_of(pace(planned, "regression", 2, 2.0)) == [14, 13]  # as of 1.5 s


@pytest.fixture
def two(tmp_path):
    """The path of the recipe."""
    path = tmp_path / "two.toml"
    path.write_text(TWO)
    return str(path)


def test_a_new_length_replaces_those_of_corrections_and_a_stage_of_a_single_step_keeps_it(two):
    assert recipe.read(two, {"train.paced": "[[2, 20]]"}).train.paced == ((2, 20),)
    Path(two).write_text(TWO.replace("steps = 20", "steps = 20, paced = [[2, 20]]", 1))
    brief = recipe.read(two, {"train.steps": "1"})
    assert brief.train.paced == ()
    assert steps_of(paced(1)(brief, "regression", 2, 1.0)) == [6, 1]


def test_the_learning_rate_falls_along_the_share_that_is_done_without_a_jump(planned):
    whole = planned.train
    assert [whole.place(step) for step in (0, 7, 19, 20)] == [0, 7, 19, 20]
    shorter = replace(whole, steps=12, paced=((4, 20), (8, 16)))
    # From step 4 on a step is 16 / 12 planned ones, from 8 on (20 - 4 - 16 / 3) / 4.
    places = [shorter.place(step) for step in (0, 4, 8, 10, 12)]
    assert places == pytest.approx([0, 4, 4 + 16 / 3, 4 + 16 / 3 + 16 / 3, 20])
    assert shorter.progress(10) == pytest.approx(places[3] / 20)
    assert [shorter.rate(step) for step in range(5)] == [whole.rate(step) for step in range(5)]
    assert shorter.rate(11) < whole.rate(15) < shorter.rate(8)
    steps = [abs(shorter.rate(step) - shorter.rate(step + 1)) for step in range(4, 11)]
    assert max(steps) < 0.3 * whole.optimiser.lr


def test_the_running_average_covers_the_same_share_of_a_longer_training():
    short = Training(steps=1000, ema=0.99)
    longer = replace(short, steps=2000, paced=((100, 1000),))
    assert (short.decay(50), longer.decay(50)) == (0.99, 0.99)
    # the last 200 of 2,000 steps, not 100 of 1,000
    assert longer.decay(100) == pytest.approx(0.995)
    assert replace(longer, ema=0.0).decay(100) == 0


def test_earlier_lengths_out_of_order_are_refused(two):
    for wrong in ("[[8, 20], [4, 16]]", "[[8, 7]]", "[[20, 30]]"):
        with refuses(r"expected train\.paced with rising steps"):
            recipe.read(two, {"train.paced": wrong})


class Clock:
    """A clock by which a step takes 1 s, from step 3 on 1.5 s, and from step 8 on 2.5 s, as other work begins."""

    def __init__(self):
        self.seconds, self.steps = 0.0, 0

    def monotonic(self):
        return self.seconds

    def add_step(self, *_):
        self.steps += 1
        self.seconds += 1.0 if self.steps < 3 else 1.5 if self.steps < 8 else 2.5


MINUTES_OF = 2 * STEPS  # seconds that both stages take by the plan


def train_by(clock, one, data, out, progress):
    pace = replace(paced(MINUTES_OF), now=clock.monotonic)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("voxlate.training.log.time", clock)
        options = {"device": "cpu", "beginning": Beginning(pace=pace)}
        return train(one, data, out, progress=progress, **options)


@pytest.fixture(scope="module")
def slowed():
    return Clock()


@pytest.fixture(scope="module")
def corrected(planned, prepared_once, slowed, tmp_path_factory):
    """A run of two stages whose lengths were corrected several times because its steps became slower."""
    folder = tmp_path_factory.mktemp("corrected") / "run"
    return train_by(slowed, planned, prepared_once, folder, slowed.add_step)


def test_a_training_ends_in_its_minutes_although_its_steps_become_slower(corrected, slowed):
    chosen, _ = begun_recipe(corrected.folder)
    assert sum(steps_of(chosen)) == slowed.steps < 2 * STEPS
    assert slowed.seconds == pytest.approx(MINUTES_OF, rel=0.1)
    notes = read_json(corrected.provenance)["corrections"]
    assert notes[0]["steps_before"] == {"regression": STEPS, "final": STEPS}
    stages = [note["stage"] for note in notes]
    assert stages.count("regression") > 1, "what happens after the first correction counts, too"
    assert chosen == recipe.read(str(corrected.recipe))
    assert len(chosen.all_stages[0].train.paced) > 1


@slow
@pytest.mark.parametrize("last", [("regression", 6), ("regression", 9), ("final", 3)])
def test_a_training_that_is_stopped_and_resumed_gives_the_weights_of_its_recipe(
    planned, prepared, fit, out, last
):
    clock = Clock()

    def stop(stage, done, *_):
        clock.add_step()
        if (stage, done) == last:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        train_by(clock, planned, prepared, out, stop)
    train_by(clock, begun_recipe(out)[0], prepared, out, clock.add_step)
    assert clock.seconds == pytest.approx(MINUTES_OF, rel=0.1)
    anew = fit(begun_recipe(out)[0], "anew")
    assert same_weights(out, anew)
    assert same_weights(out, anew, "regression")


def test_an_edited_recipe_of_a_corrected_run_is_refused_and_one_of_before_is_written_again(
    corrected, tmp_path
):
    run = Run(shutil.copytree(corrected.folder, tmp_path / "run"))
    after, (chosen, _) = run.recipe.read_text(), begun_recipe(run.folder)
    last = read_json(run.provenance)["corrections"][-1]["steps_before"]
    before = [
        replace(stage.train, steps=last.get(stage.name, stage.train.steps))
        for stage in chosen.all_stages
    ]
    before[-1] = replace(before[-1], paced=before[-1].paced[:-1])
    run.recipe.write_text(tomli_w.dumps(recipe.to_dict(with_trainings(chosen, before))))
    # as where it was stopped between the files
    assert begun_recipe(run.folder)[0] == recipe.read(str(run.recipe)) == chosen
    run.recipe.write_text(after.replace("seed = 0", "seed = 5"))
    refusal = "expected the recipe that this run began with, found an edited one"
    with refuses(refusal):
        begun_recipe(run.folder)


@every_row(
    "seconds, fewest, done, lengths, too_slow",
    [
        (1.5, {"final": 15}, ("regression", 2), [12, 15], False),  # 10 and 15 of 1.5 s are 37.5 s
        (1.5, {"regression": 14, "final": 15}, ("regression", 2), [14, 13], True),
        (20.0, {"regression": 6, "final": 5}, ("regression", 2), [6, 5], False),
        (20.0, {"final": 6}, ("regression", 2), [6, 5], True),
        (3.0, {"regression": 21, "final": 16}, ("final", 2), [20, 14], True),
        (3.0, {"final": 14}, ("final", 2), [20, 14], False),
    ],
)
def test_a_stage_gives_its_time_to_one_below_its_fewest_steps_and_only_a_worse_result_is_said(
    planned, seconds, fewest, done, lengths, too_slow
):
    said = []
    pace = paced(38, fewest=fewest, say=lambda one: said.append(one.code))
    corrected = pace(planned, *done, seconds)
    assert steps_of(corrected) == lengths
    assert said == ["paced", "too-slow"][: 1 + too_slow]
    if too_slow:
        replace(pace, deadline=19)(corrected, *done, seconds)
        assert said == ["paced", "too-slow", "paced"], "it is said once"


@every_row(
    "times, pace",
    [
        ([1.0, 1.2, 9.0], 1.2),
        ([3.0, 3.2, 3.1, 1.0, 1.2, 9.0, 2.0], 1.2),
        ([1.0, 3.2, 3.1, 1.0, 3.2, 3.1], 3.1),
    ],
)
def test_the_pace_of_a_probe_is_that_of_its_quietest_repeat(times, pace):
    assert quiet_pace(times) == pace


def test_a_resumed_run_keeps_the_pace_of_its_plan_less_what_it_used(planned, tmp_path):
    PaceRecord(**RECORD).write(tmp_path)
    Run(tmp_path).log.write_text(
        '{"stage": "regression", "step": 5, "seconds": 20.0}\n{"stage": "regression", "step": 9, "seconds": 30.0}\n'
        '{"stage": "final", "step": 1, "seconds": 5.0}\n{"stage": "final", "st'  # cut short by a kill
    )
    kept = read_pace(tmp_path, planned)
    assert kept.fewest == {}, "as it was written before a plan had fewest steps"
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
    assert read_pace(tmp_path, planned) is None, "the lengths were set by hand"
    write_json(Run(tmp_path).pace, RECORD)
    assert read_pace(tmp_path, planned) is not None
    write_json(Run(tmp_path).pace, RECORD | change)
    refusal = r"plan\.json: expected the speed and steps of a plan as voxlate writes it"
    with refuses(refusal):
        read_pace(tmp_path, planned)
