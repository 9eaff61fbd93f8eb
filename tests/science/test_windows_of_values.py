"""Losses within windows of values: known answers of flat images."""

import pytest
import torch
from torch import nn

from refusals import refuses
from rows import every_row
from voxlate.science.methods.method import Problem
from voxlate.science.methods.regression import Regression, RegressionSettings
from voxlate.science.methods.tasks import Translate
from voxlate.science.nets.interface import NetworkInput
from voxlate.training import recipe

BRAIN = (-1 / 3, -0.28)


@every_row(
    "image, truth, expected",
    [
        (BRAIN[0], sum(BRAIN) / 2, 1.0),  # half of a width that becomes 2
        (0.5, 0.9, 0.0),  # outside
        (0.9, -0.9, 2.0),  # bone and air count once as the whole width
    ],
)
def test_an_error_within_a_window_counts_as_its_share_of_the_window(image, truth, expected):
    size = (1, 1, 1, 4, 4)
    method = Regression(RegressionSettings(windows={"brain": BRAIN}), nn.Identity(), Translate())
    problem = Problem(NetworkInput(), mask=torch.ones(size), x0=torch.full(size, truth))
    losses = method.compare(torch.full(size, image), problem)
    assert losses["windows.brain"].item() == pytest.approx(expected, abs=1e-5)
    assert losses["total"].item() == pytest.approx(expected + abs(truth - image), abs=1e-5)


@every_row("window", ["[0.2, 0.1]", "[5, 80]"])
def test_a_window_with_swapped_ends_or_in_another_unit_is_refused(window):
    with refuses(r"method\.windows\.brain as \[low, high\] with low < high"):
        recipe.read("t1_to_t2_brain", {"method.windows.brain": window})
