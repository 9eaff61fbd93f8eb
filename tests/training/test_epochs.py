"""What an epoch is for each method with turns: a pass of the turn that makes images over the data."""

from collections import Counter

import pytest
import torch

from rows import every_row
from trainings import same_weights, stop_at
from voxlate.base.errors import Stopped
from voxlate.science.methods.cycle import Cycle
from voxlate.science.methods.opponent import Opponent
from voxlate.science.methods.regression import Regression
from voxlate.training import recipe
from voxlate.training import stage as loop
from voxlate.training.job import Job
from voxlate.training.run import Run
from voxlate.training.train import train

ITEMS = 24  # four training cases of six slices
CRITIC = (
    "{ gan_loss = 'least_squares', penalty = 0, critic_turns = %d, critic = { widths = [4, 4] } }"
)
METHODS = {
    "regression": ({}, Regression, {"net": ITEMS}),
    "opponent": ({"opponent": CRITIC % 1}, Opponent, {"critic": ITEMS, "generator": ITEMS}),
    "five critic turns": (
        {"opponent": CRITIC % 5},
        Opponent,
        {"critic": 5 * ITEMS, "generator": ITEMS},
    ),
    "cycle": (
        {
            "method": "{ kind = 'cycle', critic = { widths = [4, 4], norm = 'instance', output = 'patches' } }"
        },
        Cycle,
        {"critics": ITEMS, "generators": ITEMS},
    ),
}


@every_row("name", METHODS)
def test_in_an_epoch_the_turn_that_makes_images_takes_as_many_items_as_there_are(
    prepared, tiny, tmp_path, monkeypatch, name
):
    changes, method, wanted = METHODS[name]
    few = {"epochs": "1", "batch": "12", "validate_every": "0", "validation_items": "1"}
    changes = changes | {f"train.{key}": value for key, value in few.items()}
    taken, inner = Counter[str](), method.loss

    def counting(self, turn, batch, *others):
        if self.training:
            taken[turn] += len(batch.item)
        return inner(self, turn, batch, *others)

    monkeypatch.setattr(method, "loss", counting)
    train(recipe.read(str(tiny), changes), prepared, tmp_path / "run", device="cpu")
    assert taken == wanted


def test_a_run_that_counted_the_critics_items_goes_on_as_it_began(
    prepared, tiny, tmp_path, monkeypatch
):
    """Version 0.6 took a critic's items for those of the epoch: half as many steps, and no word of it in its state."""
    few = {"epochs": "2", "batch": "4", "save_every": "100", "validate_every": "0"}
    few["stop"] = "{ after_epochs = 50 }"
    changes = {"opponent": CRITIC % 1} | {f"train.{key}": value for key, value in few.items()}
    asked, out = recipe.read(str(tiny), changes), tmp_path / "run"
    old = property(lambda job: job.epoch_steps_of_all_turns)
    with monkeypatch.context() as before:
        before.setattr(Job, "epoch_steps", old)
        whole = train(asked, prepared, tmp_path / "whole", device="cpu")
        with pytest.raises(Stopped):
            train(asked, prepared, out, device="cpu", progress=stop_at(1))
    state = torch.load(out / "state.pt", weights_only=True)
    del state["epochs"]["steps"]
    torch.save(state, out / "state.pt")
    kept, inner = [], loop.begin_learner

    def watched(*arguments):
        kept.append(inner(*arguments))
        return kept[0]

    monkeypatch.setattr(loop, "begin_learner", watched)
    run = train(asked, prepared, out, device="cpu")
    assert kept[0].epochs.steps == 3, "24 items of 4 for a critic and a generator"
    assert recipe.read(str(Run(out).recipe)).train.steps == 6, "the new definition has 12"
    assert same_weights(whole, run)
    fresh = train(asked, prepared, tmp_path / "fresh", device="cpu")
    assert recipe.read(str(fresh.recipe)).train.steps == 12
