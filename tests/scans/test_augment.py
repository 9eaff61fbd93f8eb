import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Generator, Tensor

from rows import every_row
from voxlate.science.batch import Batch
from voxlate.training.batches.augment import (
    AugmentSettings,
    augment,
    blur,
    draw_affine,
    random_curve,
    sample,
    sampling_grid,
    smooth_field,
)

EVERYTHING = AugmentSettings(
    flip_lr=0.5,
    rotate_degrees=20,
    tilt_degrees=10,
    scale=0.2,
    stretch=0.1,
    shear=0.1,
    translate=0.1,
    elastic_mm=2,
    gamma=0.5,
    contrast=0.3,
    remap=0.5,
    invert=0.3,
    bias=0.2,
    blur_mm=1,
    noise=0.05,
)
SPATIAL = AugmentSettings(
    rotate_degrees=30, scale=0.2, stretch=0.1, shear=0.1, translate=0.1, elastic_mm=2
)


def generators(count: int, seed: int = 0) -> list[Generator]:
    return [Generator().manual_seed(1000 * seed + k) for k in range(count)]


def spacing(count: int, *mm: float) -> Tensor:
    return torch.tensor(mm or (1.0, 1.0, 1.0)).repeat(count, 1)


def pictures(count: int, channels: int, *size: int, seed: int = 0) -> Tensor:
    return torch.rand(count, channels, *size, generator=Generator().manual_seed(seed)) * 2 - 1


def example(count: int, depth: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Sources of two channels, targets and masks of 16 x 16."""
    target = pictures(count, 1, depth, 16, 16, seed=1)
    return pictures(count, 2, depth, 16, 16), target, torch.ones_like(target)


def batch_of(source: Tensor, target: Tensor, mask: Tensor, **more: Tensor) -> Batch:
    present = torch.ones(source.shape[:2], dtype=torch.bool)
    return Batch(
        **{
            "source": source,
            "target": target,
            "mask": mask,
            "present": present,
            "item": mask[:, 0, :, 0, 0],
            **more,
        }
    )


def augmented(
    source: Tensor, target: Tensor, mask: Tensor, *settings
) -> tuple[Tensor, Tensor, Tensor]:
    made = augment(batch_of(source, target, mask), *settings)
    return made.source, made.target, made.mask


def turned(x: Tensor, degrees: float) -> Tensor:
    """A batch turned by a known angle in the plane."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    affine = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]]).repeat(len(x), 1, 1)
    return sample(x, sampling_grid(affine, torch.zeros(len(x), 3), spacing(len(x)), x.shape[2:]))


@pytest.mark.parametrize(
    "off",
    [
        AugmentSettings(),
        AugmentSettings(rotate_degrees=90, noise=1, spatial_share=0, intensity_share=0),
    ],
)
def test_augmentation_that_draws_nothing_is_bit_identical(off):
    before = example(2)
    out = augmented(*before, off, generators(2), spacing(2))
    assert all(torch.equal(a, b) for a, b in zip(out, before))


@every_row("depth", [1, 5])
@every_row("quarters", [0, 1, 3])
def test_turns_by_quarters_equal_rot90(depth, quarters):
    x = pictures(2, 2, depth, 12, 12)
    assert torch.allclose(
        turned(x, 90 * quarters), torch.rot90(x, quarters, dims=(3, 4)), atol=1e-5
    )


def test_a_turn_keeps_distances_in_mm_where_voxels_are_not_square():
    # H is 2 mm, W is 1 mm: a point 4 mm to the right (4 voxels) comes to lie 4 mm (2 voxels) along H.
    x = torch.zeros(1, 1, 1, 11, 21)
    x[..., 5, 14] = 1
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])[None]
    out = sample(x, sampling_grid(turn, torch.zeros(1, 3), spacing(1, 1, 2, 1), x.shape[2:]))
    assert out.flatten().argmax() in (3 * 21 + 10, 7 * 21 + 10)
    assert out.max() == pytest.approx(1, abs=1e-5)


def test_a_slice_and_a_stack_of_it_are_moved_alike():
    x = pictures(1, 1, 1, 16, 16)
    stack = x.repeat(1, 1, 5, 1, 1)
    affine, shift = draw_affine(SPATIAL, generators(1), x.shape[2:])
    affine[:, 2], affine[:, :, 2] = torch.tensor([0.0, 0, 1]), torch.tensor([0.0, 0, 1])
    flat = sample(x, sampling_grid(affine, shift, spacing(1), x.shape[2:]))
    deep = sample(stack, sampling_grid(affine, shift, spacing(1), stack.shape[2:]))
    assert torch.allclose(deep, flat.expand_as(deep), atol=1e-5)


@pytest.mark.parametrize("depth", [1, 4])
def test_source_and_target_move_together(depth):
    source = pictures(3, 1, depth, 20, 20)
    target = (
        source / 2 - 0.5
    )  # linear and -1 stays -1, so it commutes with linear interpolation and the fill
    moved, other, _ = augmented(
        source, target, torch.ones_like(source), SPATIAL, generators(3), spacing(3)
    )
    assert not torch.allclose(moved, source, atol=0.1)
    assert torch.allclose(other, moved / 2 - 0.5, atol=1e-5)


def test_intensity_changes_leave_target_and_mask_alone():
    only = AugmentSettings(
        gamma=0.5, contrast=0.3, remap=1, invert=1, bias=0.3, blur_mm=1, noise=0.1
    )
    source, target, mask = example(2)
    changed, same, still = augmented(source, target, mask, only, generators(2), spacing(2))
    assert torch.equal(same, target)
    assert torch.equal(still, mask)
    assert not torch.allclose(changed, source, atol=0.1)
    assert changed.min() >= -1


@every_row("name", ["gamma", "contrast", "remap", "invert", "bias"])
def test_background_stays_background(name):
    source = pictures(2, 1, 1, 16, 16)
    source[..., :8, :] = -1
    mask = (source > -1).float()
    changed, _, _ = augmented(
        source, source, mask, AugmentSettings(**{name: 0.9}), generators(2, 3), spacing(2)
    )
    assert torch.equal(changed[..., :8, :], source[..., :8, :])


@pytest.mark.parametrize(("axis", "name"), [(2, "flip_si"), (3, "flip_ap"), (4, "flip_lr")])
def test_each_mirror_flips_its_own_axis(axis, name):
    x = pictures(1, 1, 4, 5, 6)
    out, other, mask = augmented(
        x, x, (x > 0).float(), AugmentSettings(**{name: 1.0}), generators(1), spacing(1)
    )
    assert torch.equal(out, x.flip(axis))
    assert torch.equal(other, x.flip(axis))
    assert torch.equal(mask, (x > 0).float().flip(axis))


def test_a_mirror_of_probability_a_third_happens_in_a_third():
    x = torch.arange(2.0).view(1, 1, 1, 1, 2).repeat(3000, 1, 1, 1, 1)
    out, _, _ = augmented(x, x, x, AugmentSettings(flip_lr=1 / 3), generators(3000), spacing(3000))
    assert float((out[..., 0] == 1).float().mean()) == pytest.approx(
        1 / 3, abs=0.03
    )  # 3.5 standard errors


@pytest.mark.parametrize("depth", [1, 3])
def test_an_item_does_not_depend_on_its_batch_mates(depth):
    x, y, mask = example(4, depth)
    together = augmented(x, y, mask, EVERYTHING, generators(4), spacing(4))
    for k in range(4):
        alone = augmented(
            x[k:][:1], y[k:][:1], mask[k:][:1], EVERYTHING, generators(4)[k:][:1], spacing(1)
        )
        assert all(torch.allclose(a[k:][:1], b, atol=1e-5) for a, b in zip(together, alone))


def test_a_stretched_disc_has_the_drawn_area():
    h, w = torch.meshgrid(torch.arange(128.0) - 63.5, torch.arange(128.0) - 63.5, indexing="ij")
    disc = (torch.hypot(h, w) < 30).float().view(1, 1, 1, 128, 128)
    affine, shift = draw_affine(
        AugmentSettings(scale=0.3, stretch=0.2, shear=0.2), generators(1, 5), disc.shape[2:]
    )
    out = sample(disc, sampling_grid(affine, shift, spacing(1), disc.shape[2:]))
    # the map goes from output to input, so an area shrinks by its determinant
    assert float(out.sum() / disc.sum()) == pytest.approx(
        1 / float(affine[0, :2, :2].det()), rel=0.01
    )


@pytest.mark.parametrize("size", [(1, 24, 40), (10, 12, 14)])
def test_a_smooth_field_has_unit_variance_everywhere_and_no_steps(size):
    field = smooth_field(generators(1500), 2, 6, size)
    assert torch.allclose(field.std(dim=0), torch.ones(2, *size), atol=0.1)  # 5 standard errors
    steps = (field[..., 1:] - field[..., :-1]).abs().mean()
    assert float(steps) < 3 * 6 / size[2] / 2


def test_an_elastic_displacement_is_in_mm():
    bend = torch.full((1, 2, 1, 16, 16), 0.0)
    bend[:, 0] = 6  # along W, where a voxel is 3 mm: two voxels
    ramp = torch.arange(16.0).expand(1, 1, 1, 16, 16)
    grid = sampling_grid(
        torch.eye(3)[None], torch.zeros(1, 3), spacing(1, 1, 1, 3), ramp.shape[2:], bend
    )
    assert torch.allclose(sample(ramp, grid)[..., 2:12], ramp[..., 2:12] + 2, atol=1e-4)


def test_blur_is_scipys_gaussian_with_a_width_for_each_item():
    x = pictures(2, 2, 1, 24, 30)
    sigma = torch.tensor([0.7, 1.5])
    out = blur(x, sigma, spacing(2, 5, 1, 2), 1.5)
    for k in range(2):
        widths = (float(sigma[k]), float(sigma[k]) / 2)
        expected = scipy.ndimage.gaussian_filter(
            x[k, 0, 0].double().numpy(), widths, mode="nearest", radius=(5, 5)
        )
        assert np.allclose(out[k, 0, 0].numpy(), expected, atol=2e-4)


def test_a_random_curve_rises_from_0_to_1():
    x = torch.linspace(0, 1, 1001).view(1, 1, 1, 1, -1).repeat(20, 1, 1, 1, 1)
    y = random_curve(x, generators(20))
    assert torch.all(y[..., 1:] > y[..., :-1])
    assert torch.allclose(y[..., 0], torch.zeros(()), atol=1e-6)
    assert torch.allclose(y[..., -1], torch.ones(()), atol=1e-5)
    assert float((y - x).abs().amax(dim=-1).max()) > 0.1


def test_noise_has_the_drawn_deviation():
    x = torch.zeros(400, 1, 1, 32, 32)
    out, _, _ = augmented(x, x, x, AugmentSettings(noise=0.1), generators(400), spacing(400))
    # sd uniform in 0..0.1 of intensities in 0..1, which is twice that in network units
    deviations = out.flatten(1).std(dim=1)
    assert float(deviations.mean()) == pytest.approx(0.1, abs=0.01)
    assert float(deviations.max()) <= 0.22


@pytest.mark.parametrize("depth", [1, 4])
def test_label_maps_move_with_the_images_and_are_never_interpolated(depth):
    """The label is where the image is bright, so it must be bright there after every move, too."""
    h, w = torch.meshgrid(torch.arange(40.0) - 18, torch.arange(40.0) - 22, indexing="ij")
    inside = (torch.hypot(h / 2, w) < 7).float().expand(3, 1, depth, 40, 40).clone()
    inside[2, :, :, :, 20:] = 0  # not symmetric
    absent = torch.full_like(inside, -1)
    batch = batch_of(
        inside * 2 - 1, inside * 2 - 1, inside, labels=torch.cat([3 * inside, absent], dim=1)
    )
    moves = replace(SPATIAL, translate=0.0, flip_lr=0.5, flip_ap=0.5)
    made = augment(batch, moves, generators(3), spacing(3))
    assert set(made.labels[:, :1].unique().tolist()) == {0.0, 3.0}
    assert torch.equal(made.labels[:, 1:], absent), (
        "a case without the label map has none afterwards either"
    )
    bright, labelled = made.source > 0, made.labels[:, :1] == 3
    assert (bright & labelled).sum() / (bright | labelled).sum() > 0.97
    assert not torch.equal(labelled.float(), inside)


def test_an_absent_modality_stays_background_whatever_happens_to_the_others():
    source = pictures(2, 2, 1, 16, 16)
    present = torch.tensor([[True, False], [True, True]])
    source[0, 1] = -1
    batch = batch_of(source, source, torch.ones(2, 1, 1, 16, 16), present=present)
    changed = augment(
        batch, AugmentSettings(noise=0.2, invert=1, bias=0.5), generators(2), spacing(2)
    ).source
    assert (changed[0, 1] == -1).all()
    assert not torch.equal(changed[1, 1], source[1, 1])
