"""What an epoch is for each method with turns: a pass of the turn that makes images over the data."""

from collections import Counter

import pytest

from rows import every_row
from voxlate.science.methods.cycle import Cycle
from voxlate.science.methods.opponent import Opponent
from voxlate.science.methods.regression import Regression
from voxlate.training import recipe
from voxlate.training.train import train

pytestmark = pytest.mark.slow

ITEMS = 24  # four training cases of six slices
CRITIC = (
    "{ gan_loss = 'least_squares', penalty = 0, critic_turns = %d, critic = { widths = [4, 4] } }"
)
METHODS = {
    "regression": ({}, Regression, {"net": ITEMS}),
    "three critic turns": (
        {"opponent": CRITIC % 3},
        Opponent,
        {"critic": 3 * ITEMS, "generator": ITEMS},
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
