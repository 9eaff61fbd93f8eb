"""Augmentation of a batch: one spatial map for images, mask and labels, then changes of the source's intensities alone.

Everything is in network units (background -1) and drawn from one generator an item, so an item's augmentation does
not depend on its batch.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn import functional as F

from voxlate.base.config import setting, settings
from voxlate.base.items import BACKGROUND
from voxlate.scans.cases.case import CANONICAL, axis_of
from voxlate.science.batch import Batch

PIECES = 8  # of a random curve of intensities
# Changes of shape that are off at 0.
SHAPES = ("rotate_degrees", "scale", "stretch", "shear", "translate", "elastic_mm")
BIAS_POINTS = 5  # a coil's field changes once or twice over the head
Share = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Degrees = Annotated[float, Field(ge=0, le=180)]
Amount = Annotated[float, Field(ge=0)]
Interpolation = Literal["bilinear", "nearest"]


@settings
class AugmentSettings:
    """Ranges of random changes; 0 is off. Spatial ones move source, target and mask together, the others the source."""

    flip_lr: Annotated[Share, setting("probability of mirroring left and right")] = 0.0
    flip_ap: Annotated[Share, setting("probability of mirroring front and back")] = 0.0
    rotate_degrees: Annotated[Degrees, setting("largest turn in the axial plane")] = 0.0
    scale: Annotated[Fraction, setting("largest change of size: 0.1 is 1/1.1 to 1.1 times")] = 0.0
    stretch: Annotated[Fraction, setting("the same for each axis by itself")] = 0.0
    shear: Annotated[Fraction, setting("largest shear in the axial plane")] = 0.0
    translate: Annotated[
        Share, setting("largest shift in the plane, share of the patch's side")
    ] = 0.0
    elastic_mm: Annotated[
        Amount, setting("largest standard deviation of a smooth random displacement")
    ] = 0.0
    elastic_points: Annotated[
        int, setting("control points of that displacement along each side", ge=4)
    ] = 6
    gamma: Annotated[Amount, setting("largest |log| of the exponent on intensities in 0..1")] = 0.0
    contrast: Annotated[Fraction, setting("largest change of the factor on intensities")] = 0.0
    remap: Annotated[
        Share, setting("largest share of a random rising curve mixed into intensities")
    ] = 0.0
    invert: Annotated[Share, setting("probability of turning bright and dark inside the mask")] = (
        0.0
    )
    bias: Annotated[Amount, setting("standard deviation of a smooth random log gain")] = 0.0
    blur_mm: Annotated[Amount, setting("largest standard deviation of Gaussian smoothing")] = 0.0
    noise: Annotated[
        Amount, setting("largest standard deviation of white noise, intensities in 0..1")
    ] = 0.0

    @property
    def off_centre(self) -> list[str]:
        """Changes that are on and take the middle column away from the middle; flips and sizes do not."""
        names = ("rotate_degrees", "shear", "translate", "elastic_mm")
        return [name for name in names if getattr(self, name) > 0]


def augment(
    batch: Batch,
    settings: AugmentSettings,
    generators: Sequence[Generator],
    spacing_mm: Tensor,
    axes: str = CANONICAL,
) -> Batch:
    """Augment a training batch; one generator an item; spacing_mm: [B, 3] as (D, H, W); axes: where these grow.

    Label maps are moved with the images and never interpolated. Items for which nothing is drawn stay bit-identical.
    """
    assert batch.target is not None
    parts = [batch.source, batch.target, batch.mask]
    images = torch.cat(parts, dim=1)
    grid = draw_grid(settings, generators, images.shape[2:], spacing_mm)
    flips = [(axis_of(axes, "AP"), settings.flip_ap), (axis_of(axes, "LR"), settings.flip_lr)]
    drawn = [(axis, _uniform(generators) < chance) for axis, chance in flips if chance > 0]

    def move(x: Tensor, fill: Tensor, mode: Interpolation = "bilinear") -> Tensor:
        """Images after the spatial changes, with `fill` where they come from beyond the edges."""
        if grid is not None:
            x = sample(x - fill, grid, mode).add_(fill)
        for axis, flipped in drawn:
            x = torch.where(_per_item(flipped), x.flip(axis), x)
        return x

    fill = torch.full((1, images.shape[1], 1, 1, 1), BACKGROUND)
    fill[:, -1] = 0.0
    source, target, mask = move(images, fill).split([part.shape[1] for part in parts], dim=1)
    mask = (mask >= 0.5).to(mask.dtype)
    labels = batch.labels
    if labels is not None:
        missing = (labels < 0).flatten(2).all(dim=2)[..., None, None, None]
        labels = move(labels, -missing.to(labels.dtype), "nearest")
    changed = change_intensities(source, mask, settings, generators, spacing_mm)
    # absent modalities stay background, as at synthesis
    changed = torch.where(batch.present[:, :, None, None, None], changed, source)
    return replace(batch, source=changed, target=target, mask=mask, labels=labels)


def draw_grid(
    settings: AugmentSettings,
    generators: Sequence[Generator],
    size: Sequence[int],
    spacing_mm: Tensor,
) -> Tensor | None:
    """Where to sample items of `size` (D, H, W) to rotate, scale, shear, shift and bend them (see sampling_grid).

    None where no such change is on.
    """
    s = settings
    if not any(getattr(s, name) for name in SHAPES):
        return None
    _uniform(generators)  # it decided which items change, and trainings stay as they were
    turn = _symmetric(generators, math.radians(s.rotate_degrees))
    log_scale = _symmetric(generators, math.log1p(s.scale))
    log_stretch = [_symmetric(generators, math.log1p(s.stretch)) for _ in range(3)]
    # from output to input about the centre, in mm, axes (W, H, D)
    sheared, rotation = torch.eye(3).repeat(2, len(generators), 1, 1)
    sheared[:, 0, 1] = _symmetric(generators, s.shear)
    rotation[:, 0, 0] = rotation[:, 1, 1] = torch.cos(turn)
    rotation[:, 1, 0] = torch.sin(turn)
    rotation[:, 0, 1] = -torch.sin(turn)
    log_sizes = log_scale.view(-1, 1) + torch.stack(log_stretch, dim=1)
    affine = rotation @ sheared * torch.exp(log_sizes)[:, None]
    shift = torch.zeros(len(generators), 3)
    for axis, length in enumerate((size[2], size[1])):
        shift[:, axis] = _symmetric(generators, s.translate) * length
    bend = None
    if s.elastic_mm > 0:
        amount_mm = _per_item(_uniform(generators, s.elastic_mm))
        bend = amount_mm * smooth_field(generators, _axes(size), s.elastic_points, size)
    return sampling_grid(affine, shift, spacing_mm, size, bend)


def _axes(size: Sequence[int]) -> int:
    """Number of axes along which items of `size` are moved: a slice stays in its plane."""
    return 2 if size[0] == 1 else 3


def sampling_grid(
    affine: Tensor,
    shift: Tensor,
    spacing_mm: Tensor,
    size: Sequence[int],
    bend_mm: Tensor | None = None,
) -> Tensor:
    """Where to sample, in grid_sample's coordinates: [B, D, H, W, 3], or [B, H, W, 2] for a single slice.

    affine: [B, 3, 3] in mm, axes (W, H, D); shift: [B, 3] in voxels; bend_mm: [B, 2 or 3, D, H, W], added displacement.
    """
    axes = _axes(size)
    half_mm = spacing_mm.flip(1) * torch.tensor(size[::-1]) / 2
    # a voxel's offset from the centre is u = x_n * N / 2, where x_n is grid_sample's coordinate (align_corners=False)
    linear = affine * half_mm.view(-1, 1, 3) / half_mm.view(-1, 3, 1)
    offset = shift * spacing_mm.flip(1) / half_mm
    width, height, depth = ((2 * torch.arange(n) + 1) / n - 1 for n in size[::-1])
    lines = (width, height[:, None], depth[:, None, None])
    grid = torch.empty(len(affine), *size, axes)
    for axis in range(axes):
        terms = [_per_item(linear[:, axis, k])[:, 0] * lines[k] for k in range(axes)]
        # small tensors first: only the last sum is as large as the picture
        plane = sum(terms[1:], _per_item(offset[:, axis])[:, 0])
        torch.add(plane, terms[0], out=grid[..., axis])
        if bend_mm is not None:
            grid[..., axis] += bend_mm[:, axis] / _per_item(half_mm[:, axis])[:, 0]
    return grid[:, 0] if axes == 2 else grid


def sample(x: Tensor, grid: Tensor, mode: Interpolation = "bilinear") -> Tensor:
    """Interpolation of [B, C, D, H, W] on a sampling grid, 0 beyond the edges; a slice the faster 2-D way."""
    flat = grid.dim() == 4
    images = x[:, :, 0] if flat else x
    sampled = F.grid_sample(images, grid, mode, padding_mode="zeros", align_corners=False)
    return sampled.unsqueeze(2) if flat else sampled


def smooth_field(
    generators: Sequence[Generator],
    channels: int,
    points: int,
    size: Sequence[int],
) -> Tensor:
    """A smooth random field of unit variance at every voxel, [B, channels, D, H, W]: cubic B-splines on a few knots."""
    counts = [points if length > 1 else 1 for length in size]
    field = _draw(torch.randn, generators, (channels, *counts))
    for axis, (length, count) in enumerate(zip(size, counts), start=2):
        weights = spline_weights(length, count)
        field = torch.tensordot(field, weights, dims=([axis], [1])).movedim(-1, axis)
    return field


@functools.lru_cache(maxsize=16)
def spline_weights(length: int, points: int) -> Tensor:
    """Weights [length, points] of uniform cubic B-splines; rows of unit norm, so white knots keep unit variance."""
    if points == 1:
        return torch.ones(length, 1)
    places = torch.linspace(0, points - 3, length).view(-1, 1)
    away = (places - (torch.arange(points) - 1)).abs()
    near = 2 / 3 - away**2 + away**3 / 2
    far = (2 - away).clamp(min=0) ** 3 / 6
    weights = torch.where(away < 1, near, far)
    return F.normalize(weights, dim=1)


def change_intensities(
    source: Tensor,
    mask: Tensor,
    settings: AugmentSettings,
    generators: Sequence[Generator],
    spacing_mm: Tensor,
) -> Tensor:
    """Change the source's intensities, in all channels of an item equally except for noise; background stays -1."""
    s = settings
    amounts = (s.gamma, s.contrast, s.remap, s.invert, s.bias, s.blur_mm, s.noise)
    if not any(amounts):
        return source
    _uniform(generators)  # it decided which items change, and trainings stay as they were
    x = (source + 1) / 2
    if s.invert > 0:
        x = torch.where(_per_item(_uniform(generators) < s.invert) & (mask > 0), 1 - x, x)
    if s.remap > 0:
        x = torch.lerp(x, random_curve(x, generators), _per_item(_uniform(generators, s.remap)))
    if s.gamma > 0:
        x = x ** _per_item(torch.exp(_symmetric(generators, s.gamma)))
    if s.contrast > 0:
        x = x * _per_item(1 + _symmetric(generators, s.contrast))
    if s.bias > 0:
        x = x * torch.exp(s.bias * smooth_field(generators, 1, BIAS_POINTS, source.shape[2:]))
    if s.blur_mm > 0:
        x = blur(x, _uniform(generators, s.blur_mm), spacing_mm, s.blur_mm)
    if s.noise > 0:
        x = x + _per_item(_uniform(generators, s.noise)) * _draw(
            torch.randn, generators, source.shape[1:]
        )
    # values above the window are not clipped: without its brightest tissue, a case is of little use in training
    return x.clamp(min=0) * 2 - 1


def random_curve(x: Tensor, generators: Sequence[Generator]) -> Tensor:
    """A random rising piecewise linear map of 0..1 onto itself, one an item; 0 and 1 stay."""
    steps = 0.05 + _draw(torch.rand, generators, [PIECES])
    steps = steps / steps.sum(dim=1, keepdim=True)
    out = torch.zeros_like(x)
    for k in range(PIECES):
        out += _per_item(steps[:, k]) * (x * PIECES - k).clamp_(0, 1)
    return out


def blur(x: Tensor, sigma_mm: Tensor, spacing_mm: Tensor, most_mm: float) -> Tensor:
    """Gaussian smoothing of [B, C, D, H, W] along every axis longer than 1, sigma_mm [B]; edges continue."""
    for axis in range(3):
        length = x.shape[2 + axis]
        if length == 1:
            continue
        sigma = (sigma_mm / spacing_mm[:, axis]).clamp(min=1e-3)
        finest_mm = float(spacing_mm[:, axis].min())
        radius = max(1, math.ceil(3 * most_mm / finest_mm))
        radius = min(radius, length - 1)
        places = torch.arange(-radius, radius + 1, dtype=x.dtype)
        kernel = torch.exp(-0.5 * (places / sigma.view(-1, 1)) ** 2)
        kernel = kernel / kernel.sum(dim=1, keepdim=True)
        lines = x.movedim(2 + axis, -1)
        flat = F.pad(lines.reshape(len(x), -1, length), (radius, radius), mode="replicate")
        weights = kernel.T.unsqueeze(-1).unsqueeze(-1)
        windows = sum(weight * flat[..., k : k + length] for k, weight in enumerate(weights))
        assert isinstance(windows, Tensor)
        x = windows.view(lines.shape).movedim(-1, 2 + axis)
    return x


def _per_item(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1, 1)


def _draw(
    kind: Callable[..., Tensor], generators: Sequence[Generator], shape: Sequence[int] = ()
) -> Tensor:
    """Random numbers of each item, [B, *shape]."""
    return torch.stack([kind(shape, generator=generator) for generator in generators])


def _uniform(generators: Sequence[Generator], most: float = 1.0) -> Tensor:
    """Uniform in 0..most, one an item."""
    return _draw(torch.rand, generators) * most


def _symmetric(generators: Sequence[Generator], most: float) -> Tensor:
    """Uniform in -most..most, one an item; draws nothing when most is 0."""
    if most > 0:
        return (2 * _uniform(generators) - 1) * most
    return torch.zeros(len(generators))
