"""Voxels where no source shows more than its background: they become background, whatever the network predicts.

Training excludes slices with little body (data.foreground, data.slices), so that networks invent a signal in them.
Therefore slices without a body become background as a whole, and slices with about as little body as the training had
become background away from the body. In every other slice the air becomes background that is nearer to the border of
the slice than to the body: there the padding of convolutions decides what a network writes, which leaves a frame.

Around a stripped brain, where every source is exactly 0, an image becomes background, too, where the network makes mostly
background; one whose scale begins above 0 becomes 0: in network units both are -1, the darkest value of the brain. What is 0
within the body's outline is judged by itself: in a head it is bone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from voxlate.base.array_types import Bool
from voxlate.base.errors import plural
from voxlate.base.messages import Message, message
from voxlate.base.slabs import by_plane, count_nonzero, in_slabs, map_slabs, zeros
from voxlate.checks.usual_anatomy import Anatomy
from voxlate.scans.cases.case import PreparedCase
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.intensity import Scale
from voxlate.scans.images.mask import dilate, fill_holes, find_tissue
from voxlate.synthesis.brightness import SynthesisedImage
from voxlate.synthesis.facts import ModelFacts
from voxlate.synthesis.intervals import CaseIntervals, OutputGrid

# Share of an output voxel inside such slices, from which it counts as inside.
INSIDE_SHARE = 1 - 1e-4
AIR_HU = -1000.0
EDGE = 2.0  # times data.foreground: slices with less body are rare in training, or absent from it
DARK = -0.8  # network units: the background is -1, and a small network blurs the brain into it
MOSTLY = 0.95  # share of the surroundings that must be dark: a scalp around the brain takes more than the rest
LEAST_SURROUNDINGS = 0.1  # share of a volume that is exactly 0 around a stripped brain
NEAR_MM = 5.0  # from the body, within which the network decides: only it may show scalp and skin
COUNTS = ("slices", "noise", "slices_with_little_body")  # of an entry of the provenance
# Of a target's body that no source of the training showed: a head to a stripped brain.
MOST_BEYOND = 0.1


@dataclass(frozen=True)
class Empty:
    """The voxels [D, H, W] of each image that become background, and the value of the background in its unit.

    entry: of the provenance, {} where no voxel becomes background; messages: on the slices that were filled.
    """

    voxels: Mapping[str, Bool]
    values: Mapping[str, float]
    entry: Mapping[str, Any]
    messages: Sequence[Message]

    def fill(self, images: dict[str, SynthesisedImage]) -> dict[str, SynthesisedImage]:
        """The images with background in these voxels, and a standard deviation of 0."""
        if not self.entry:
            return images
        filled = {}
        for name, image in images.items():
            voxels = self.voxels[name]
            sd = image.prediction.sd
            if sd is not None:
                sd = _with(sd, voxels, 0)
            values = _with(image.values, voxels, self.values[name])
            prediction = replace(image.prediction, sd=sd)
            filled[name] = replace(image, values=values, prediction=prediction)
        return filled

    def close_intervals(
        self, intervals: CaseIntervals, volumes: Mapping[str, Volume], output_grid: OutputGrid
    ) -> CaseIntervals:
        """Intervals on the file's voxels: both ends are the background in these voxels.

        volumes: the images on the file's voxels. Where the file has other slices, and a voxel is partly in one of these
        slices, the ends are moved to contain the image.
        """
        if not self.entry:
            return intervals
        ends = [dict[str, Volume](), dict[str, Volume]()]
        limits = (intervals.low, np.minimum), (intervals.high, np.maximum)
        for name in intervals.low:
            share = output_grid.write(self.voxels[name].astype(np.float32), "").data
            image = volumes[name].data
            partly = (share > 0) & (share <= INSIDE_SHARE)
            for closed, (end, limit) in zip(ends, limits):
                data = np.where(share > INSIDE_SHARE, image, end[name].data)
                np.copyto(data, limit(data, image), where=partly)
                closed[name] = replace(end[name], data=data)
        low, high = ends
        return replace(intervals, low=low, high=high)


def _with(values: np.ndarray, voxels: Bool, value: float) -> np.ndarray:
    """A copy of values [D, H, W] with another value in some voxels."""
    number = values.dtype.type(value)
    return in_slabs(lambda slab, where: np.where(where, number, slab), values, voxels)


class EmptySlices(NamedTuple):
    """The slices [D] in which no source shows anything, and the number of those that hold noise."""

    which: Bool
    noise: int


def find_empty_slices(facts: ModelFacts, prepared: PreparedCase) -> EmptySlices:
    """The slices of a case in which no source shows anything.

    A slice shows nothing where no voxel is above the background. Where the background is noise and data.foreground
    excludes slices, a slice also shows nothing where no voxel belongs to the body, and less than that share of the slice
    is above the background.
    """
    least = facts.data.foreground
    names = facts.visible_sources(prepared)
    is_background = np.array([_background_slices(prepared, name, least) for name in names])
    empty = np.asarray(is_background.any(1).all(0))
    return EmptySlices(empty, int((empty & ~is_background[:, 0].all(0)).sum()))


def unused_slices(empty: Bool, slices_per_step: float) -> Bool:
    """The slices [D] whose prediction decides nothing, because they and their neighbours become background.

    slices_per_step: of the network's grid, between slices of the file's. The intervals of a voxel of the file depend on
    the voxel above and below it, and both may be between two slices.
    """
    if not np.isfinite(slices_per_step):
        return np.zeros_like(empty)
    return ~dilate(~empty[:, None, None], 2 + math.ceil(slices_per_step), (1, 1, 1))[:, 0, 0]


def empty_slices(
    facts: ModelFacts,
    prepared: PreparedCase,
    anatomy: Anatomy | None,
    images: Mapping[str, SynthesisedImage],
    found: EmptySlices,
) -> Empty:
    """The background of a case on the network's grid: slices in which no source shows anything, and air in others.

    images: as the network makes them.
    """
    least = facts.data.foreground
    names = facts.visible_sources(prepared)
    shown = " and ".join(names)
    volumes = [prepared.volume(name) for name in names]
    empty, noise = found
    slices = np.broadcast_to(empty[:, None, None], prepared.header.shape)
    body = _any_of([prepared.outline(name) for name in names])
    air = slices
    little = np.zeros_like(empty)
    if not facts.ignores_outside:  # which makes background there itself
        # the share of one slice does not exclude patches of several slices
        little_share = EDGE * least if facts.data.patch[0] == 1 else 0.0
        outside, little = _away_from_the_body(volumes, body, little_share)
        air = in_slabs(np.logical_or, outside, slices)
    scales = {name: image.scale for name, image in images.items()}
    above = begins_above(facts, scales)
    surroundings = _around_a_stripped_brain(volumes)
    within = in_slabs(np.logical_and, surroundings, body)
    beside = in_slabs(np.logical_xor, surroundings, within)
    around = {
        name: surroundings if _is_darkest(image, within) else beside
        for name, image in images.items()
        if _is_darkest(image, beside)
    }
    trained, beyond = ({}, {}) if anatomy is None else (anatomy.backgrounds, anatomy.beyond)
    if facts.imported:  # what the targets of a published training show is not known
        beyond = dict.fromkeys(images, 1.0)
    voxels = {}
    values = {}
    for name, scale in scales.items():
        voxels[name] = slices if beyond.get(name, 0) > MOST_BEYOND else air
        peak = images[name].peak
        usual = trained.get(name)
        if peak is not None and usual is not None:
            usual = float(peak.stretch(np.array([usual]))[0])
        values[name] = background_of(scale, facts.units[name], usual)
        if name in around:
            voxels[name] = in_slabs(np.logical_or, voxels[name], around[name])
            if name in above:
                values[name] = 0.0
        else:
            above.pop(name, None)
    entry: dict[str, Any] = {}
    if (filled := count_nonzero(air)) or around:
        entry = dict(zip(COUNTS, (int(empty.sum()), noise, int((little & ~empty).sum()))))
        entry["voxels"] = filled
        entry["values"] = {name: round(value, 4) for name, value in values.items()}
    if around:
        entry["surroundings"] = {name: count_nonzero(where) for name, where in around.items()}
    messages = _describe(entry, values, above, shown, f"of {len(empty)} slices")
    return Empty(voxels, values, entry, messages)


def _describe(
    entry: Mapping[str, Any],
    values: Mapping[str, float],
    above: Mapping[str, float],
    shown: str,
    of_slices: str,
) -> list[Message]:
    """A message on what an entry states; above: by image that is 0 around a brain, the beginning of its scale."""
    count = entry.get(COUNTS[0], 0)
    few = entry.get(COUNTS[2], 0)
    parts = []
    if count:
        stated = " and ".join(f"{value:.4g} in {name}" for name, value in values.items())
        parts.append(f"{count} {of_slices} show no body and were set to background ({stated})")
    if few:
        parts.append(
            f"of {plural(few, 'slice')} with little body, what is farther than {NEAR_MM:g} mm from it was set to background"
        )
    for name, low in above.items():
        parts.append(
            f"{shown} are exactly 0 around the brain: {name} was set to 0 there, too, in place of {low:.4g}, the darkest value of its scale"
        )
    return (
        [message("empty-slices", f"{'; '.join(parts)}.", slices=count, little=few)] if parts else []
    )


def begins_above(facts: ModelFacts, scales: Mapping[str, Scale]) -> dict[str, float]:
    """The beginning of each scale above 0, unless a window or a floor fixes it."""
    specs = facts.intensity
    return {
        name: scale.low
        for name, scale in scales.items()
        if specs[name].window is None and specs[name].floor is None and scale.low > 0
    }


def _is_darkest(image: SynthesisedImage, where: Bool) -> bool:
    """Whether the network makes background there; it does not if the images of its training show the skull."""
    inside = count_nonzero(where)
    if not inside:
        return False
    dark = map_slabs(
        lambda values, some: np.count_nonzero(image.scale.of(values[some]) < DARK),
        image.values,
        where,
    )
    return bool(sum(dark) / inside > MOSTLY)


def _around_a_stripped_brain(volumes: Sequence[Volume]) -> Bool:
    """Voxels [D, H, W] that are 0 in all sources and not enclosed; none unless each source's background is clean."""
    signal = _any_of([volume.data[0] for volume in volumes])
    # counting is cheap, and leaves out most scans of heads and bodies
    is_surrounded = signal.size - count_nonzero(signal) >= LEAST_SURROUNDINGS * signal.size
    if is_surrounded and all(find_tissue(volume)[1] for volume in volumes):
        return in_slabs(np.logical_not, fill_holes(signal))
    return zeros(signal.shape, bool)


def _any_of(images: Sequence[np.ndarray]) -> Bool:
    """Where some image is not 0."""
    return in_slabs(lambda *slabs: np.logical_or.reduce([slab != 0 for slab in slabs]), *images)


def _away_from_the_body(
    volumes: Sequence[Volume], body: Bool, little_share: float
) -> tuple[Bool, Bool]:
    """Voxels [D, H, W] away from what any source shows, and the slices [D] with less of a body than a share.

    Away are voxels farther than NEAR_MM: all of them in the slices with little body, and in others those that are
    nearer to the border of the slice. Slices without a body are left to the network.
    """
    little = by_plane(lambda slab: slab.mean((1, 2)), body) < little_share
    tables = [find_tissue(volume)[0] for volume in volumes if volume.unit == "HU"]
    spacing_mm = volumes[0].grid.spacing_mm
    near = dilate(_any_of([body, *tables]), NEAR_MM, spacing_mm)
    if not count_nonzero(body):
        little[:] = False
    away = in_slabs(partial(_nearer_to_border, pixel_mm=spacing_mm[1:]), near)
    few = little[:, None, None]
    away = in_slabs(lambda air, of, all_air: np.where(all_air, ~of, air), away, near, few)
    return away, little & by_plane(lambda slab: slab.any((1, 2)), away)


def _nearer_to_border(near: Bool, pixel_mm: Sequence[float]) -> Bool:
    """The pixels of slices [D, H, W] that are nearer to the border of their slice than to a region of it."""
    height, width = (
        (np.minimum(np.arange(length), np.arange(length)[::-1]) + 0.5) * side
        for length, side in zip(near.shape[1:], pixel_mm)
    )
    to_border = np.minimum(height[:, None], width)
    nearer = np.zeros(near.shape, bool)
    for region, of_slice in zip(near, nearer):
        if region.any():
            of_slice[:] = ndimage.distance_transform_edt(~region, pixel_mm) > to_border
    return nearer


def _background_slices(prepared: PreparedCase, name: str, least: float) -> tuple[Bool, Bool]:
    """The slices [D] with nothing above the background, and the slices with nothing but noise."""
    volume = prepared.volume(name)
    image = volume.data[0]
    above, clean = find_tissue(volume)
    share = by_plane(lambda slab: slab.mean((1, 2)), above)
    if clean:
        return share == 0, np.zeros(len(image), bool)
    constant = by_plane(lambda slab: slab.min((1, 2)) == slab.max((1, 2)), image)
    blank = (share == 0) & (constant | (volume.unit == "HU"))
    noise = ~blank & (share < least)
    if noise.any():  # the foreground is computed only where it matters
        noise &= ~by_plane(lambda slab: slab.any((1, 2)), prepared.outline(name))
    return blank, noise


def background_of(scale: Scale, unit: str, trained: float | None) -> float:
    """The background of an image in its unit: that of the training, else air in HU or the lowest; within the image's range."""
    value = AIR_HU if unit == "HU" else scale.low
    if trained is not None:
        value = trained
    return float(np.clip(value, scale.low, scale.high))
