"""Losses within windows of values: known answers of flat images."""

import pytest
import torch
from torch import nn

from voxlate.base.errors import BadInput
from voxlate.science.methods.method import Problem
from voxlate.science.methods.regression import Regression, RegressionSettings
from voxlate.science.methods.tasks import Translate
from voxlate.science.nets.interface import NetworkInput
from voxlate.training import recipe

BRAIN = (-1 / 3, -0.28)


def terms(image: float, truth: float) -> dict[str, float]:
    size = (1, 1, 1, 4, 4)
    method = Regression(RegressionSettings(windows={"brain": BRAIN}), nn.Identity(), Translate())
    problem = Problem(NetworkInput(), mask=torch.ones(size), x0=torch.full(size, truth))
    losses = method.compare(torch.full(size, image), problem)
    return {name: float(value) for name, value in losses.items()}


def test_an_error_within_a_window_counts_as_its_share_of_the_window():
    middle = sum(BRAIN) / 2
    found = terms(BRAIN[0], middle)
    assert found["windows.brain"] == pytest.approx(1.0, abs=1e-5), "half of a width that becomes 2"
    assert found["total"] == pytest.approx(1.0 + middle - BRAIN[0], abs=1e-5)


def test_an_error_outside_of_a_window_counts_in_the_plain_loss_alone():
    found = terms(0.5, 0.9)
    assert found["windows.brain"] == 0
    assert found["total"] == pytest.approx(0.4)


def test_a_window_of_bone_and_air_counts_once_as_its_whole_width():
    assert terms(0.9, -0.9)["windows.brain"] == pytest.approx(2.0)


@pytest.mark.parametrize("window", ["[0.2, 0.1]", "[5, 80]"])
def test_a_window_with_swapped_ends_or_in_another_unit_is_refused(window):
    with pytest.raises(BadInput, match=r"method\.windows\.brain as \[low, high\] with low < high"):
        recipe.read("t1_to_t2_brain", {"method.windows.brain": window})
