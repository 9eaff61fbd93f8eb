"""Loss weights against their published forms, and masked means."""

import pytest
import torch
from exact import KINDS, SCHEDULES, for_every
from torch.testing import assert_close

from refusals import refuses
from rows import every_row
from voxlate.science.diffusion.objective import (
    MinSnr,
    Uniform,
    WeightTable,
    from_x0_weight,
    mean_in_mask,
    snr,
)
from voxlate.science.diffusion.prediction import diffuse, target, to_x0
from voxlate.science.diffusion.schedules import Cosine

T = torch.linspace(0.001, 0.999, 41, dtype=torch.float64)


@for_every(name=SCHEDULES, kind=KINDS)
def test_a_weighted_output_error_is_the_weighted_error_of_the_image(name, kind):
    """Whatever the output, its squared error times its weight is 3 times the squared error of its x0."""
    alpha, sigma = SCHEDULES[name](T)
    stream = torch.Generator().manual_seed(0)
    x0, eps, error = torch.randn(3, len(T), 5, generator=stream, dtype=torch.float64)
    x_t, right = diffuse(x0, eps, alpha, sigma), target(x0, eps, alpha, sigma, kind)
    image_error = to_x0(right + error, x_t, alpha, sigma, kind) - to_x0(
        right, x_t, alpha, sigma, kind
    )
    weight = from_x0_weight(torch.full_like(T, 3.0), alpha, sigma, kind)
    assert_close(weight[:, None] * error**2, 3 * image_error**2, rtol=1e-4, atol=1e-9)


def test_min_snr_has_the_published_form_of_each_prediction():
    alpha, sigma = Cosine()(T)
    ratio = alpha**2 / sigma**2
    capped = ratio.clamp(max=5)
    weight = MinSnr(gamma=5.0)
    for kind, factor in (
        ("x0", 1),
        ("eps", 1 / ratio),
        ("v", 1 / (ratio + 1)),
    ):
        assert_close(weight(alpha, sigma, kind), capped * factor)


@for_every(weight=[Uniform(), MinSnr()], kind=KINDS)
def test_weights_are_finite_at_both_ends(weight, kind):
    for schedule in SCHEDULES.values():
        found = weight(*schedule(torch.tensor([0.0, 1.0])), kind)
        assert found.isfinite().all()
        assert (found >= 0).all()


def test_a_table_is_linear_between_its_entries_and_constant_beyond():
    table = WeightTable(log_snr=(-2.0, 0.0, 4.0), weight=(1.0, 3.0, 1.0))
    log_snr = torch.tensor([-9.0, -2.0, -1.0, 0.0, 1.0, 4.0, 9.0], dtype=torch.float64)
    alpha, sigma = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()
    assert table(alpha, sigma, "v").tolist() == pytest.approx([1, 1, 2, 3, 2.5, 1, 1])


def test_a_table_of_x0_weights_is_turned_into_those_of_the_output():
    table = WeightTable(log_snr=(-2.0, 2.0), weight=(1.0, 1.0), of="x0")
    alpha, sigma = Cosine()(T)
    assert_close(table(alpha, sigma, "eps"), 1 / snr(alpha, sigma))


@every_row("log_snr, weight", [((1.0, 0.0), (1.0, 1.0)), ((0.0, 1.0), (1.0, 1.0, 1.0))])
def test_a_table_out_of_order_is_refused(log_snr, weight):
    with refuses("rising log_snr"):
        WeightTable(log_snr=log_snr, weight=weight)


def brain() -> torch.Tensor:
    """Of half of the voxels, of one, and of none."""
    mask = torch.zeros(3, 1, 1, 4, 4)
    mask[0, ..., :2, :] = 1
    mask[1, ..., 0, 0] = 1
    return mask


@every_row("reduction, voxels", [("mask", (16, 2)), ("all", (32, 32))])
def test_errors_in_the_mask_alone_are_summed_over_as_many_voxels_as_the_reduction_says(
    reduction, voxels
):
    error = torch.arange(96.0).reshape(3, 2, 1, 4, 4)
    sums = error[0, :, :, :2].sum(), error[1, :, :, 0, 0].sum()
    expected = [float(one) / count for one, count in zip(sums, voxels)]
    assert mean_in_mask(error, brain(), reduction).tolist() == pytest.approx([*expected, 0])
