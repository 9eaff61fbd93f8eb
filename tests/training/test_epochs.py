"""What an epoch is for each method with turns: a pass of the turn that makes images over the data."""

from collections import Counter

import pytest

from rows import every_row
from voxlate.science.methods.cycle import Cycle
from voxlate.science.methods.opponent import Opponent
from voxlate.science.methods.regression import Regression
from voxlate.training.train import train

pytestmark = pytest.mark.slow

ITEMS = 24  # four training cases of six slices
CRITIC = (
    "{ gan_loss = 'least_squares', penalty = 0, critic_turns = 3, critic = { widths = [4, 4] } }"
)
CYCLE = "{ kind = 'cycle', critic = { widths = [4, 4], norm = 'instance', output = 'patches' } }"
METHODS = [
    ({}, Regression, {"net": ITEMS}),
    ({"opponent": CRITIC}, Opponent, {"critic": 3 * ITEMS, "generator": ITEMS}),
    ({"method": CYCLE}, Cycle, {"critics": ITEMS, "generators": ITEMS}),
]


@every_row("changes, method, wanted", METHODS)
def test_in_an_epoch_the_turn_that_makes_images_takes_as_many_items_as_there_are(
    prepared, read_tiny, tmp_path, monkeypatch, changes, method, wanted
):
    made = read_tiny(changes, epochs=1, batch=12, validate_every=0, validation_items=1)
    taken, inner = Counter[str](), method.loss

    def counting(self, turn, batch, *others):
        if self.training:
            taken[turn] += len(batch.item)
        return inner(self, turn, batch, *others)

    monkeypatch.setattr(method, "loss", counting)
    train(made, prepared, tmp_path / "run", device="cpu")
    assert taken == wanted
