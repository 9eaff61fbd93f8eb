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


def loss(name: str, extra, of: Problem = FIRST, labels: Tensor | None = None, reduction="mask"):
    (value,) = EXTRA_LOSSES[name](extra, of, labels, reduction).tolist()
    return value


@every_row(
    "given, of, reduction, expected",
    [
        (IMAGES + flat(0.1, 9, 0.3, 9), problem([0, 1, 0, 1]), "mask", 0.2),
        (IMAGES + flat(0.1, 9, 0.3, 9), problem([0, 1, 0, 1]), "all", 0.1),
        (IMAGES + flat(0.1, 9, 0.3, 9), problem([0, 1, 0, 0], [0, 0, 0, 1]), "mask", 0.2),
        (
            flat(0.1, 0.6),
            Problem(NetworkInput({"a": flat(0.1), "b": flat(0.2)}), flat(0.1)),
            "mask",
            0.2,
        ),
    ],
)
def test_reconstructions_are_compared_where_available(given, of, reduction, expected):
    found = loss("reconstructions", given, of, reduction=reduction)
    assert found == pytest.approx(expected)


def test_images_of_each_available_latent_count_one_each():
    """They err by 0.1, 0.2 and 0.3; the latent of the second, missing one does not count, nor an absent truth."""
    images = [IMAGES + number / 10 for number in (1, 9, 2, 3)]
    assert loss("images_by_latent", images, problem([0, 1, 0, 0])) == pytest.approx(0.1 + 0.2 + 0.3)
    gaps, absent = [one + flat(0, 0, 0, 5) for one in images], problem([0, 1, 0, 0], [0, 0, 0, 1])
    assert loss("images_by_latent", gaps, absent) == pytest.approx(0.1 + 0.2)


def test_variance_and_codes_are_means():
    grid = torch.arange(6.0).view(1, 1, *SIZE)
    assert loss("latent_variance", grid) == pytest.approx(2.5)
    assert loss("codes", (grid, grid - 0.5)) == pytest.approx(0.5)


def test_a_segmentation_of_nothing_learned_has_the_known_loss():
    """Four classes, all equally likely: cross entropy log 4, and Dice of 6 voxels of which two are of class 1."""
    labels = torch.tensor([0.0, 1, 1, 0, 0, 0]).view(1, 1, *SIZE)
    dice = [(2 * 2 / 4 + 1) / (2 + 6 / 4 + 1), 1 / (6 / 4 + 1), 1 / (6 / 4 + 1)]
    expected = math.log(4) + 1 - sum(dice) / 3
    found = loss("segmentation", torch.zeros(1, 4, *SIZE), labels=labels)
    assert found == pytest.approx(expected)


def test_a_segmentation_counts_labelled_voxels_alone():
    labels = torch.tensor([0.0, 1, -1, 2, -1, -1]).view(1, 1, *SIZE)
    right = nn.functional.one_hot(labels[:, 0].clamp(min=0).long(), 3).movedim(-1, 1) * 100.0
    wrong = right.clone()
    wrong[..., 1, 1:] = torch.tensor([-99.0, 99, 5]).view(1, 3, 1, 1)
    for logits in (right, wrong):
        assert loss("segmentation", logits, labels=labels) == pytest.approx(0, abs=1e-6)
    assert loss("segmentation", wrong, labels=labels * 0 - 1) == 0


def test_a_label_beyond_the_classes_is_refused():
    with refuses("4, found 4"):
        loss("segmentation", torch.zeros(1, 4, *SIZE), labels=flat(4.0))


def test_the_critic_of_features_knows_available_modalities():
    """It is sure, and right but for the second modality, which it takes for the first; two slices."""
    sure = 100 * torch.eye(4)[[0, 0, 2, 3]]
    logits = sure[None, :, :, None].expand(1, 4, 4, 2)
    assert loss("modality_logits", logits) == pytest.approx(100 / 3)
    assert loss("modality_logits", logits, problem([0, 1, 0, 0])) == pytest.approx(0)
    assert loss("modality_logits", logits * 0) == pytest.approx(math.log(4))


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
