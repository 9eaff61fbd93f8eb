from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Generator

from rows import every_row
from voxlate.science.batch import Batch
from voxlate.training.batches.augment import (
    AugmentSettings,
    augment,
    blur,
    random_curve,
    sample,
    sampling_grid,
    smooth_field,
)

SPATIAL = AugmentSettings(
    rotate_degrees=30, scale=0.2, stretch=0.1, shear=0.1, translate=0.1, elastic_mm=2
)


def generators(count):
    return [Generator().manual_seed(k) for k in range(count)]


def spacing(count, *mm):
    return torch.tensor(mm or (1.0, 1.0, 1.0)).repeat(count, 1)


def pictures(count, channels, *size, seed=0):
    return torch.rand(count, channels, *size, generator=Generator().manual_seed(seed)) * 2 - 1


def augmented(
    settings,
    source,
    target=None,
    mask=None,
    draws=None,
    **more,
):
    """A batch of images, whose target and mask are the source unless they are given, with voxels of 1 mm."""
    count = len(source)
    mask = source if mask is None else mask
    given = {
        "source": source,
        "target": source if target is None else target,
        "mask": mask,
        "present": torch.ones(source.shape[:2], dtype=torch.bool),
        "item": mask[:, 0, :, 0, 0],
    }
    return augment(Batch(**given | more), settings, draws or generators(count), spacing(count))


def test_augmentation_that_draws_nothing_is_bit_identical():
    target = pictures(2, 1, 1, 16, 16, seed=1)
    before = (pictures(2, 2, 1, 16, 16), target, torch.ones_like(target))
    out = augmented(AugmentSettings(), *before)
    assert all(map(torch.equal, (out.source, out.target, out.mask), before))


def test_a_turn_keeps_distances_in_mm_where_voxels_are_not_square():
    # H is 2 mm, W is 1 mm: a point 4 mm to the right (4 voxels) comes to lie 4 mm (2 voxels) along H.
    x = torch.zeros(1, 1, 1, 11, 21)
    x[..., 5, 14] = 1
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])[None]
    out = sample(x, sampling_grid(turn, torch.zeros(1, 3), spacing(1, 1, 2, 1), x.shape[2:]))
    assert out.flatten().argmax() in (3 * 21 + 10, 7 * 21 + 10)
    assert out.max() == pytest.approx(1, abs=1e-5)


@every_row("depth", [1, 4])
def test_source_and_target_move_together(depth):
    source = pictures(3, 1, depth, 20, 20)
    # linear and -1 stays -1, so it commutes with linear interpolation and the fill
    out = augmented(SPATIAL, source, source / 2 - 0.5)
    assert not torch.allclose(out.source, source, atol=0.1)
    assert torch.allclose(out.target, out.source / 2 - 0.5, atol=1e-5)


@every_row("name", ["gamma", "contrast", "remap", "invert", "bias", "blur_mm", "noise"])
def test_intensity_changes_leave_target_mask_and_background_alone(name):
    source, target = pictures(2, 1, 1, 16, 16), pictures(2, 1, 1, 16, 16, seed=1)
    source[..., :8, :] = -1
    mask = (source > -1).float()
    out = augmented(AugmentSettings(**{name: 0.9}), source, target, mask)
    assert torch.equal(out.target, target)
    assert torch.equal(out.mask, mask)
    assert not torch.allclose(out.source, source, atol=0.1)
    assert out.source.min() >= -1
    if name not in ("blur_mm", "noise"):
        assert torch.equal(out.source[..., :8, :], source[..., :8, :])


@every_row("axis, name", [(3, "flip_ap"), (4, "flip_lr")])
def test_each_mirror_flips_its_own_axis(axis, name):
    x = pictures(1, 1, 4, 5, 6)
    mask = (x > 0).float()
    out = augmented(AugmentSettings(**{name: 1.0}), x, mask=mask)
    assert torch.equal(out.source, x.flip(axis))
    assert torch.equal(out.target, x.flip(axis))
    assert torch.equal(out.mask, mask.flip(axis))


@every_row("size", [(1, 24, 40), (10, 12, 14)])
def test_a_smooth_field_has_unit_variance_everywhere_and_no_steps(size):
    field = smooth_field(generators(1500), 2, 6, size)
    assert torch.allclose(field.std(dim=0), torch.ones(2, *size), atol=0.1)  # 5 standard errors
    steps = (field[..., 1:] - field[..., :-1]).abs().mean()
    assert float(steps) < 3 * 6 / size[2] / 2


def test_an_elastic_displacement_is_in_mm():
    bend = torch.zeros(1, 2, 1, 16, 16)
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
    for k, width in enumerate(sigma.tolist()):
        image = x[k, 0, 0].double().numpy()
        expected = scipy.ndimage.gaussian_filter(
            image, (width, width / 2), mode="nearest", radius=5
        )
        assert np.allclose(out[k, 0, 0].numpy(), expected, atol=2e-4)


def test_a_random_curve_rises_from_0_to_1():
    x = torch.linspace(0, 1, 1001).view(1, 1, 1, 1, -1).repeat(20, 1, 1, 1, 1)
    y = random_curve(x, generators(20))
    assert torch.all(y[..., 1:] > y[..., :-1])
    assert y[..., 0].abs().max() <= 1e-6
    assert (y[..., -1] - 1).abs().max() <= 1e-5
    assert float((y - x).abs().amax(dim=-1).max()) > 0.1


@every_row("depth", [1, 4])
def test_label_maps_move_with_the_images_and_are_never_interpolated(depth):
    """The label is where the image is bright, so it must be bright there after every move, too."""
    line = torch.arange(40.0)
    inside = (torch.hypot((line[:, None] - 18) / 2, line - 22) < 7).float()
    inside = inside.expand(3, 1, depth, 40, 40).clone()
    inside[2, :, :, :, 20:] = 0  # not symmetric
    absent = torch.full_like(inside, -1)
    moves = replace(SPATIAL, translate=0.0, flip_lr=0.5, flip_ap=0.5)
    labels = torch.cat([3 * inside, absent], dim=1)
    made = augmented(moves, inside * 2 - 1, mask=inside, labels=labels)
    assert set(made.labels[:, :1].unique().tolist()) == {0.0, 3.0}
    assert torch.equal(made.labels[:, 1:], absent)  # a case without the label map
    bright, labelled = made.source > 0, made.labels[:, :1] == 3
    assert (bright & labelled).sum() / (bright | labelled).sum() > 0.97
    assert not torch.equal(labelled.float(), inside)


def test_an_absent_modality_stays_background_whatever_happens_to_the_others():
    source = pictures(2, 2, 1, 16, 16)
    present = torch.tensor([[True, False], [True, True]])
    source[0, 1] = -1
    noisy = AugmentSettings(noise=0.2, invert=1, bias=0.5)
    changed = augmented(noisy, source, mask=torch.ones(2, 1, 1, 16, 16), present=present).source
    assert (changed[0, 1] == -1).all()
    assert not torch.equal(changed[1, 1], source[1, 1])
