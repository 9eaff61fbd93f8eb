"""Voxels where no source shows more than its background: they become background, whatever the network predicts.

Training excludes slices with little body (data.foreground, data.slices), so that networks invent a signal in them.
Therefore slices without a body become background as a whole, and slices with about as little body as the training had
become background away from the body. In every other slice the air becomes background that is nearer to the border of
the slice than to the body: there the padding of convolutions decides what a network writes, which leaves a frame.

Around a stripped brain, where every source is exactly 0, an image whose scale begins above 0 becomes 0, too: in network
units both are -1, which is the darkest value of the brain in physical units.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt

from voxlate.cases.anatomy import Anatomy
from voxlate.cases.case import PreparedCase
from voxlate.images.grid import Volume
from voxlate.images.intensity import Scale
from voxlate.images.mask import dilate, fill_holes, find_tissue, foreground
from voxlate.recipe import Recipe
from voxlate.synthesis.inputs import visible_sources
from voxlate.synthesis.intervals import OutputGrid
from voxlate.synthesis.result import SynthesisedImage
from voxlate.system.arrays import Bool
from voxlate.system.errors import plural
from voxlate.system.messages import Message, message
from voxlate.system.slabs import by_plane, in_slabs, map_slabs, zeros

WHOLE = 1 - 1e-4  # share of an output voxel inside such slices, from which it counts as inside
HU_AIR = -1000.0
EDGE = 2.0  # times data.foreground: slices with less body are rare in training, or absent from it
DARK = -0.8  # network units: the background is -1, and a small network blurs the brain into it
MOSTLY = 0.95  # share of the surroundings that must be dark: a scalp around the brain takes more than the rest
LEAST_SURROUNDINGS = 0.1  # share of a volume that is exactly 0 around a stripped brain
NEAR_MM = 5.0  # from the body, within which the network decides: only it may show scalp and skin
MOST_BEYOND = (
    0.1  # of a target's body that no source of the training showed: a head to a stripped brain
)


@dataclass(frozen=True)
class Empty:
    """The slices [D] of the network's grid that are background, and those of them with noise in some source.

    outside: voxels [D, H, W] away from the body in other slices; little: those of these slices with little of it;
    values: the background of each image in its unit; sources: the modalities that show nothing there; foreground: the
    least share of body in a slice of the training; beyond: the images whose training showed a body where no source
    did, in which only slices are filled. surroundings: voxels [D, H, W] around a stripped brain; above: by image whose
    scale begins above 0, the beginning of this scale; these images are 0 in the surroundings.
    """

    slices: Bool
    noise: Bool
    outside: Bool
    little: Bool
    values: Mapping[str, float]
    sources: tuple[str, ...]
    foreground: float
    beyond: frozenset[str]
    surroundings: Bool
    above: Mapping[str, float]

    @property
    def any(self) -> bool:
        """Whether any voxel is set to background."""
        return bool(self.slices.any() or _count(self.outside) or self.above)

    def fill(self, images: Mapping[str, SynthesisedImage]) -> dict[str, SynthesisedImage]:
        """The images with background in these voxels, and a standard deviation of 0."""
        return {name: self._fill(image, name) for name, image in images.items()}

    def _fill(self, image: SynthesisedImage, name: str) -> SynthesisedImage:
        voxels = self._voxels(name)
        values = _with(image.values, voxels, self.values[name])
        sd = image.prediction.sd
        if sd is not None:
            sd = _with(sd, voxels, 0)
        return replace(image, values=values, prediction=replace(image.prediction, sd=sd))

    def close_intervals(
        self,
        low: dict[str, Volume],
        high: dict[str, Volume],
        volumes: Mapping[str, Volume],
        output_grid: OutputGrid,
    ) -> tuple[dict[str, Volume], dict[str, Volume]]:
        """Lower and upper ends of intervals on the file's voxels: both are the background in these voxels.

        volumes: the images on the file's voxels. Where the file has other slices, and a voxel is partly in one of these
        slices, the ends are moved to contain the image.
        """
        if not self.any:
            return low, high
        lower = dict[str, Volume]()
        upper = dict[str, Volume]()
        for name in low:
            share = output_grid.write(self._voxels(name).astype(np.float32), "", "").data
            inside = share > WHOLE
            partly = share > 0
            image = volumes[name].data
            least = np.where(partly, np.minimum(low[name].data, image), low[name].data)
            most = np.where(partly, np.maximum(high[name].data, image), high[name].data)
            lower[name] = replace(low[name], data=np.where(inside, image, least))
            upper[name] = replace(high[name], data=np.where(inside, image, most))
        return lower, upper

    def _voxels(self, name: str) -> Bool:
        """The voxels [D, H, W] that become background in an image."""
        air = name not in self.beyond
        slices = self.slices[:, None, None]
        voxels = in_slabs(lambda away, whole: (away & air) | whole, self.outside, slices)
        return in_slabs(np.logical_or, voxels, self.surroundings) if name in self.above else voxels

    @property
    def messages(self) -> list[Message]:
        """A message on the voxels that were filled."""
        parts = []
        values = " and ".join(f"{value:.4g} in {name}" for name, value in self.values.items())
        if self.slices.any():
            noise = ""
            if self.noise.any():
                noise = f" ({int(self.noise.sum())} of them hold noise, or less than data.foreground = {self.foreground:g} of the slice outside the body)"
            parts.append(
                f"{int(self.slices.sum())} of {len(self.slices)} slices show only background in {' and '.join(self.sources)}{noise}: they were set to background, which is {values}"
            )
        little = int(self.little.sum())
        if little:
            parts.append(
                f"{plural(little, 'slice')} {'has' if little == 1 else 'have'} less body than training usually saw (below {EDGE * self.foreground:.0%}): farther than {NEAR_MM:g} mm from it they were set to background"
            )
        for name, low in self.above.items():
            parts.append(
                f"{' and '.join(self.sources)} are exactly 0 around the brain: {name} was set to 0 there, too, in place of {low:.4g}, the darkest value of its scale"
            )
        if not parts:
            return []
        slices = int(self.slices.sum())
        return [message("empty-slices", f"{'; '.join(parts)}.", slices=slices, little=little)]

    @property
    def entry(self) -> dict[str, Any]:
        """The entry of a provenance; {} where nothing was filled."""
        if not self.any:
            return {}
        stated = {
            "slices": int(self.slices.sum()),
            "noise": int(self.noise.sum()),
            "slices_with_little_body": int(self.little.sum()),
            "voxels": _count(in_slabs(np.logical_or, self.outside, self.slices[:, None, None])),
            "values": {name: round(value, 4) for name, value in self.values.items()},
        }
        if self.above:
            stated["surroundings"] = {name: _count(self.surroundings) for name in self.above}
        return stated


def _with(values: np.ndarray, voxels: Bool, value: float) -> np.ndarray:
    """A copy of values [D, H, W] with another value in some voxels."""

    def _change(slab: np.ndarray, where: Bool) -> np.ndarray:
        copy = slab.copy()
        copy[where] = value
        return copy

    return in_slabs(_change, values, voxels)


def _count(voxels: Bool) -> int:
    return int(sum(map_slabs(np.count_nonzero, voxels)))


def empty_slices(
    recipe: Recipe,
    prepared: PreparedCase,
    anatomy: Anatomy | None,
    scales: Mapping[str, Scale],
    units: Mapping[str, str],
    images: Mapping[str, SynthesisedImage],
) -> Empty:
    """The background of a case on the network's grid: slices in which no source shows anything, and air in others.

    scales: of the synthesised images, from network units; images: as the network makes them. A slice shows nothing where no voxel is above the background.
    Where the background is noise and data.foreground excludes slices, a slice also shows nothing where no voxel belongs
    to the body, and less than that share of the slice is above the background.
    """
    shown = tuple(visible_sources(recipe, prepared))
    least = recipe.data.foreground
    empty = np.ones(prepared.header.shape[0], bool)
    constant = empty.copy()
    volumes = [prepared.volume(name) for name in shown]
    for volume in volumes:
        blank, noise = _background_slices(volume, least)
        empty &= blank | noise
        constant &= blank
    # the share of one slice does not exclude patches of several slices
    little_share = EDGE * least if recipe.data.patch[0] == 1 else 0.0
    outside = zeros(prepared.header.shape, bool)
    little = np.zeros_like(empty)
    if not recipe.ignores_outside:  # which makes background there itself
        outside, little = _away_from_the_body(volumes, little_share)
        outside[empty] = False
        little &= ~empty
    trained = {} if anatomy is None else anatomy.backgrounds
    beyond = {} if anatomy is None else anatomy.beyond
    values = {
        name: background_of(scale, units[name], trained.get(name)) for name, scale in scales.items()
    }
    above = begins_above(recipe, scales)
    surroundings = zeros(prepared.header.shape, bool)
    if above:
        surroundings = _around_a_stripped_brain(volumes)
        above = {
            name: low
            for name, low in above.items()
            if name in images and _is_darkest(images[name], surroundings)
        }
    values |= dict.fromkeys(above, 0.0)
    return Empty(
        empty,
        empty & ~constant,
        outside,
        little,
        values,
        shown,
        least,
        frozenset(name for name in scales if beyond.get(name, 0) > MOST_BEYOND),
        surroundings,
        above,
    )


def begins_above(recipe: Recipe, scales: Mapping[str, Scale]) -> dict[str, float]:
    """The beginning of each scale above 0, unless a window or a floor fixes it."""
    above = dict[str, float]()
    for name, scale in scales.items():
        spec = recipe.intensity[name]
        if spec.window is None and spec.floor is None and scale.low > 0:
            above[name] = scale.low
    return above


def _is_darkest(image: SynthesisedImage, where: Bool) -> bool:
    """Whether the network makes background there; it does not if the images of its training show the skull."""
    inside = _count(where)
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
    nothing = zeros(volumes[0].data[0].shape, bool)
    if not all(find_tissue(volume)[1] for volume in volumes):
        return nothing
    signal = _any_of([volume.data[0] for volume in volumes])
    if (signal.size - _count(signal)) / signal.size < LEAST_SURROUNDINGS:
        return nothing
    return in_slabs(np.logical_not, fill_holes(signal))


def _any_of(images: Sequence[np.ndarray]) -> Bool:
    """Where some image is not 0."""
    return in_slabs(lambda *slabs: np.logical_or.reduce([slab != 0 for slab in slabs]), *images)


def _away_from_the_body(volumes: Sequence[Volume], little_share: float) -> tuple[Bool, Bool]:
    """Voxels [D, H, W] away from what any source shows, and the slices [D] with less of a body than a share.

    Away are voxels farther than NEAR_MM: all of them in the slices with little body, and in others those that are
    nearer to the border of the slice. Slices without a body are left to the network.
    """
    body = _any_of([foreground(volume) for volume in volumes])
    little = by_plane(lambda slab: slab.mean(axis=(1, 2)), body) < little_share
    tables = [find_tissue(volume)[0] for volume in volumes if volume.unit == "HU"]
    spacing_mm = volumes[0].grid.spacing_mm
    near = dilate(_any_of([body, *tables]), NEAR_MM, spacing_mm)
    if not _count(body):
        little[:] = False
    away = in_slabs(partial(_nearer_to_border, pixel_mm=spacing_mm[1:]), near)
    few = little[:, None, None]
    away = in_slabs(lambda air, of, all_air: np.where(all_air, ~of, air), away, near, few)
    return away, little & by_plane(lambda slab: slab.any(axis=(1, 2)), away)


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
            of_slice[:] = distance_transform_edt(~region, sampling=pixel_mm) > to_border
    return nearer


def _background_slices(volume: Volume, least: float) -> tuple[Bool, Bool]:
    """The slices with nothing above the background, and the slices with nothing but noise."""
    image = volume.data[0]
    above, clean = find_tissue(volume)
    share = by_plane(lambda slab: slab.mean(axis=(1, 2)), above)
    if clean:
        return share == 0, np.zeros(len(image), bool)
    constant = by_plane(lambda slab: slab.min(axis=(1, 2)) == slab.max(axis=(1, 2)), image)
    blank = (share == 0) & (constant | (volume.unit == "HU"))
    noise = ~blank & (share < least)
    if noise.any():  # the foreground is computed only where it matters
        noise &= ~by_plane(lambda slab: slab.any(axis=(1, 2)), foreground(volume))
    return blank, noise


def background_of(scale: Scale, unit: str, trained: float | None) -> float:
    """The background of an image in its unit: that of the training, else air in HU or the lowest; within the image's range."""
    value = HU_AIR if unit == "HU" else scale.low
    if trained is not None:
        value = trained
    return float(np.clip(value, scale.low, scale.high))
