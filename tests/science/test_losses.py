"""Losses beside that of voxels: known answers of simple images."""

import math
from collections.abc import Sequence

import pytest
import torch
from calling import batch_of
from torch import Tensor, nn

from refusals import refuses
from rows import every_row
from voxlate.science.diffusion.noise import Noise
from voxlate.science.methods.method import Problem
from voxlate.science.methods.regression import EXTRA_LOSSES, Regression, RegressionSettings
from voxlate.science.methods.tasks import Complete, Translate
from voxlate.science.nets.interface import NetworkInput, Output

SIZE = (1, 2, 3)


def flat(*values: float) -> Tensor:
    """Images of one item that are grey all over."""
    return torch.tensor([values])[:, :, None, None, None].expand(1, -1, *SIZE).clone()


def problem(missing: list[int], absent: Sequence[int] = ()) -> Problem:
    """Of four greys, some of which are missing or absent."""
    hidden = torch.tensor([missing]).bool()
    there = torch.tensor([absent or [0] * 4]) == 0
    return Problem(
        NetworkInput(code=torch.tensor([[*missing, *absent]]).float()),
        mask=flat(*missing).float(),
        known=IMAGES.masked_fill((hidden | ~there)[:, :, None, None, None], -1),
        x0=IMAGES,
        x0_present=there,
    )


IMAGES = flat(0.1, 0.2, 0.3, 0.4)
FIRST = problem([1, 0, 0, 0])


SECOND = problem([0, 1, 0, 0])
LAST_ABSENT = problem([0, 1, 0, 0], [0, 0, 0, 1])
OFF = IMAGES + flat(0.1, 9, 0.3, 9)
TWO = Problem(NetworkInput({"a": flat(0.1), "b": flat(0.2)}), flat(0.1))
# the images of each modality's latent alone
BY_LATENT = [IMAGES + number / 10 for number in (1, 9, 2, 3)]
GRID = torch.arange(6.0).view(1, 1, *SIZE)
# four classes, all equally likely: Dice of 6 voxels of which two are of class 1
TWO_OF_ONE = torch.tensor([0.0, 1, 1, 0, 0, 0]).view(1, 1, *SIZE)
DICE = [(2 * 2 / 4 + 1) / (2 + 6 / 4 + 1), 1 / (6 / 4 + 1), 1 / (6 / 4 + 1)]
LABELS = torch.tensor([0.0, 1, -1, 2, -1, -1]).view(1, 1, *SIZE)
RIGHT = nn.functional.one_hot(LABELS[:, 0].clamp(min=0).long(), 3).movedim(-1, 1) * 100.0
ELSEWHERE = RIGHT.clone()  # wrong where there are no labels
ELSEWHERE[..., 1, 1:] = torch.tensor([-99.0, 99, 5]).view(1, 3, 1, 1)
# a critic of features that is sure, and right but for the second modality; two slices
SURE = 100 * torch.eye(4)[[0, 0, 2, 3]][None, :, :, None].expand(1, 4, 4, 2)


@every_row(
    "name, extra, of, labels, reduction, expected",
    [
        ("reconstructions", OFF, problem([0, 1, 0, 1]), None, "mask", 0.2),
        ("reconstructions", OFF, problem([0, 1, 0, 1]), None, "all", 0.1),
        ("reconstructions", OFF, LAST_ABSENT, None, "mask", 0.2),
        ("reconstructions", flat(0.1, 0.6), TWO, None, "mask", 0.2),
        # the latent of the second, missing one does not count, nor an absent truth
        ("images_by_latent", BY_LATENT, SECOND, None, "mask", 0.1 + 0.2 + 0.3),
        (
            "images_by_latent",
            [one + flat(0, 0, 0, 5) for one in BY_LATENT],
            *(LAST_ABSENT, None, "mask", 0.1 + 0.2),
        ),
        ("latent_variance", GRID, FIRST, None, "mask", 2.5),
        ("codes", (GRID, GRID - 0.5), FIRST, None, "mask", 0.5),
        (
            "segmentation",
            torch.zeros(1, 4, *SIZE),
            *(FIRST, TWO_OF_ONE, "mask", math.log(4) + 1 - sum(DICE) / 3),
        ),
        ("segmentation", RIGHT, FIRST, LABELS, "mask", 0),
        ("segmentation", ELSEWHERE, FIRST, LABELS, "mask", 0),
        ("segmentation", ELSEWHERE, FIRST, LABELS * 0 - 1, "mask", 0),
        ("modality_logits", SURE, FIRST, None, "mask", 100 / 3),
        ("modality_logits", SURE, SECOND, None, "mask", 0),
        ("modality_logits", SURE * 0, FIRST, None, "mask", math.log(4)),
    ],
)
def test_losses_of_extras_count_what_is_there_alone(name, extra, of, labels, reduction, expected):
    (found,) = EXTRA_LOSSES[name](extra, of, labels, reduction).tolist()
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_a_label_beyond_the_classes_is_refused():
    with refuses("4, found 4"):
        EXTRA_LOSSES["segmentation"](torch.zeros(1, 4, *SIZE), FIRST, flat(4.0), "mask")


class Gives(nn.Module):
    """A network that answers 0 everywhere, with reconstructions that err by 1, where they are asked for."""

    def forward(self, inputs):
        extras = dict.fromkeys(inputs.extras, inputs.state + 1)
        return Output(torch.zeros_like(inputs.state), extras)


def test_a_regression_weighs_the_losses_of_extras():
    images = torch.full((3, 4, 1, 4, 4), 0.5)
    full = batch_of(images, images)
    method = Regression(RegressionSettings(extras={"reconstructions": 20.0}), Gives(), Complete())
    parts = method.loss("net", full, Noise(0, full.item))
    found = {name: value.item() for name, value in parts.items()}
    assert found == pytest.approx({"l1": 0.5, "reconstructions": 20, "total": 20.5})
    assert method.run(Complete().pose(full)).extras == {}


BRAIN = (-1 / 3, -0.28)
STEP = torch.tensor([0, 0, 0.8, 0.8]).expand(1, 1, 1, 4, 4)
UPPER = torch.tensor([1.0, 1, -1, -1]).view(4, 1).expand(1, 1, 1, 4, 4)
FIRST_ROW = torch.tensor([1.0, -1, -1, -1]).view(4, 1).expand(1, 1, 1, 4, 4)
GREY = torch.ones(1, 1, 1, 4, 4)


@every_row(
    "options, image, truth, expected",
    [
        # an error within a window counts as its share of the window: here half of a width that becomes 2
        ({"windows": {"brain": BRAIN}}, BRAIN[0] * GREY, sum(BRAIN) / 2 * GREY, 1.0),
        ({"windows": {"brain": BRAIN}}, 0.5 * GREY, 0.9 * GREY, 0.0),  # outside
        (
            {"windows": {"brain": BRAIN}},
            0.9 * GREY,
            -0.9 * GREY,
            2.0,
        ),  # bone and air: the whole width
        # 1 less the Dice of what lies above a border, or below it by the sign of its width
        ({"borders": {"bone": (0.0, 1e-3, 1.0)}}, FIRST_ROW, UPPER, 1 - (8 + 1) / (12 + 1)),
        ({"borders": {"bone": (0.0, -1e-3, 1.0)}}, FIRST_ROW, UPPER, 1 - (16 + 1) / (20 + 1)),
        ({"borders": {"bone": (0.0, 1e-3, 1.0)}}, UPPER, UPPER, 0.0),
        # an offset has no error of slopes, a step that is missed its height at one pixel of each row
        ({"gradient": 0.5}, STEP + 0.1, STEP, 0.0),
        ({"gradient": 0.5}, 0 * STEP, STEP, 0.5 * 0.8 / 4),
    ],
)
def test_windows_borders_and_slopes_add_their_known_losses(options, image, truth, expected):
    method = Regression(RegressionSettings(**options), nn.Identity(), Translate())
    losses = method.compare(image, Problem(NetworkInput(), mask=GREY, x0=truth))
    added = losses["total"] - (image - truth).abs().mean()
    assert added.item() == pytest.approx(expected, abs=1e-5)
