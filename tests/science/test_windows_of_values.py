"""Losses within windows of values, at borders and of slopes: known answers of simple images."""

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


def test_a_border_counts_1_less_the_dice_of_what_lies_above_it_or_below_it_by_the_sign_of_its_width():
    truth = torch.full((1, 1, 1, 4, 4), -1.0)
    truth[..., :2, :] = 1
    image = truth.clone()
    image[..., 1, :] = -1  # half of what lies above: Dice 2 · 4 / (4 + 8)
    borders = {"above": (0.0, 1e-3, 1.0), "below": (0.0, -1e-3, 1.0)}
    method = Regression(RegressionSettings(borders=borders), nn.Identity(), Translate())
    problem = Problem(NetworkInput(), mask=torch.ones(truth.shape), x0=truth)
    losses = method.compare(image, problem)
    assert losses["borders.above"].item() == pytest.approx(1 - (8 + 1) / (12 + 1))
    assert losses["borders.below"].item() == pytest.approx(1 - (16 + 1) / (20 + 1))
    assert (
        losses["borders.above"].item()
        > method.compare(truth, problem)["borders.above"].item() + 0.3
    )


def test_an_offset_has_no_error_of_slopes_and_a_step_that_is_missed_has_its_height_at_one_pixel_of_each_row():
    truth = torch.zeros(1, 1, 1, 4, 4)
    truth[..., 2:] = 0.8
    method = Regression(RegressionSettings(gradient=0.5), nn.Identity(), Translate())
    problem = Problem(NetworkInput(), mask=torch.ones(truth.shape), x0=truth)
    assert method.compare(truth + 0.1, problem)["gradient"].item() == pytest.approx(0, abs=1e-6)
    missed = method.compare(torch.zeros_like(truth), problem)["gradient"].item()
    assert missed == pytest.approx(0.5 * 0.8 / 4)


def test_a_border_without_a_width_is_refused():
    with refuses(r"method\.borders\.bone, found 0"):
        recipe.read("t1_to_t2_brain", {"method.borders": "{ bone = [0, 0, 1] }"})
