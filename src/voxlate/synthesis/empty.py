"""Slices in which no source shows more than its background: they become background, whatever the network predicts.

Training excludes slices with little body (data.foreground, data.slices), so that networks invent a signal in them.
Therefore slices without a body become background as a whole, and slices with about as little body as the training had
become background away from the body.

Around a stripped brain, where every source is exactly 0, an image whose scale begins above 0 becomes 0, too: in network
units both are -1, which is the darkest value of the brain in physical units.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from voxlate import slabs
from voxlate.data.anatomy import Anatomy
from voxlate.data.case import PreparedCase
from voxlate.errors import plural
from voxlate.images.grid import Volume
from voxlate.images.intensity import Scale
from voxlate.images.mask import fill_holes, foreground, shows
from voxlate.recipe import Recipe
from voxlate.slabs import by_plane, in_slabs, reduced, release, zeros
from voxlate.synthesis.inputs import shown_sources
from voxlate.synthesis.intervals import OutputGrid
from voxlate.synthesis.result import SynthesisedImage

Place = tuple[slice, ...]

WHOLE = 1 - 1e-4  # share of an output voxel inside such slices, from which it counts as inside
HU_AIR = -1000.0
EDGE = 2.0  # times data.foreground: slices with less body are rare in training, or absent from it
DARK = -0.8  # network units: the background is -1, and a small network blurs the brain into it
MOSTLY = 0.95  # share of the surroundings that must be dark: a scalp around the brain takes more than the rest
LEAST_SURROUNDINGS = 0.1  # share of a volume that is exactly 0 around a stripped brain
NEAR_MM = 5.0  # from the body, within which the network decides in such slices: only it may show scalp and skin


@dataclass(frozen=True)
class Empty:
    """The slices [D] of the network's grid that are background, and those of them with noise in some source.

    outside: voxels [D, H, W] away from the body in other slices with little of it; values: the background of each image
    in its unit; sources: the modalities that show nothing there; foreground: the least share of body in a slice of the
    training. surroundings: voxels [D, H, W] around a stripped brain; above: by image whose scale begins above
    0, the beginning of this scale; these images are 0 in the surroundings.
    """

    slices: NDArray[np.bool_]
    noise: NDArray[np.bool_]
    outside: NDArray[np.bool_]
    values: Mapping[str, float]
    sources: tuple[str, ...]
    foreground: float
    surroundings: NDArray[np.bool_]
    above: Mapping[str, float]

    @property
    def any(self) -> bool:
        return bool(self.slices.any() or self._little_body or self.above)

    def filled(self, images: Mapping[str, SynthesisedImage]) -> dict[str, SynthesisedImage]:
        """The images with background in these voxels, and a standard deviation of 0."""
        return {name: self._filled(image, name) for name, image in images.items()}

    def _filled(self, image: SynthesisedImage, name: str) -> SynthesisedImage:
        voxels = self._voxels(name)
        values = _with(image.values, voxels, self.values[name])
        sd = image.prediction.sd
        if sd is not None:
            sd = _with(sd, voxels, 0)
        return replace(image, values=values, prediction=replace(image.prediction, sd=sd))

    def closed(
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
            share = output_grid.written(self._voxels(name).astype(np.float32), "", "").data
            inside = share > WHOLE
            partly = share > 0
            image = volumes[name].data
            least = np.where(partly, np.minimum(low[name].data, image), low[name].data)
            most = np.where(partly, np.maximum(high[name].data, image), high[name].data)
            lower[name] = replace(low[name], data=np.where(inside, image, least))
            upper[name] = replace(high[name], data=np.where(inside, image, most))
        return lower, upper

    def _voxels(self, name: str) -> NDArray[np.bool_]:
        """The voxels [D, H, W] that become background in an image."""
        voxels = in_slabs(np.logical_or, self.outside, self.slices[:, None, None])
        return in_slabs(np.logical_or, voxels, self.surroundings) if name in self.above else voxels

    @property
    def note(self) -> str:
        """A sentence on the voxels that were filled; "" if there are none."""
        parts = []
        values = " and ".join(f"{value:.4g} in {name}" for name, value in self.values.items())
        if self.slices.any():
            noise = ""
            if self.noise.any():
                noise = f" ({int(self.noise.sum())} of them hold noise, or less than data.foreground = {self.foreground:g} of the slice outside the body)"
            parts.append(
                f"{int(self.slices.sum())} of {len(self.slices)} slices show only background in {' and '.join(self.sources)}{noise}: they were set to background, which is {values}"
            )
        if self._little_body:
            parts.append(
                f"{plural(self._little_body, 'slice')} {'has' if self._little_body == 1 else 'have'} less body than training usually saw (below {EDGE * self.foreground:.0%}): farther than {NEAR_MM:g} mm from it they were set to background"
            )
        for name, low in self.above.items():
            parts.append(
                f"{' and '.join(self.sources)} are exactly 0 around the brain: {name} was set to 0 there, too, in place of {low:.4g}, the darkest value of its scale"
            )
        return "; ".join(parts) + "." if parts else ""

    @property
    def _little_body(self) -> int:
        """The number of slices with little of the body."""
        return int(by_plane(lambda slab: slab.any(axis=(1, 2)), self.outside).sum())

    @property
    def stated(self) -> dict[str, Any]:
        """The entry of a provenance; {} where nothing was filled."""
        if not self.any:
            return {}
        stated = {
            "slices": int(self.slices.sum()),
            "noise": int(self.noise.sum()),
            "slices_with_little_body": self._little_body,
            "voxels": _count(in_slabs(np.logical_or, self.outside, self.slices[:, None, None])),
            "values": {name: round(value, 4) for name, value in self.values.items()},
        }
        if self.above:
            stated["surroundings"] = {name: _count(self.surroundings) for name in self.above}
        return stated


def _with(values: np.ndarray, voxels: NDArray[np.bool_], value: float) -> np.ndarray:
    """A copy of values [D, H, W] with another value in some voxels."""

    def changed(slab: np.ndarray, where: NDArray[np.bool_]) -> np.ndarray:
        copy = slab.copy()
        copy[where] = value
        return copy

    return in_slabs(changed, values, voxels)


def _count(voxels: NDArray[np.bool_]) -> int:
    return int(sum(reduced(np.count_nonzero, voxels)))


def empty_slices(
    recipe: Recipe,
    prepared: PreparedCase,
    anatomy: Anatomy | None,
    scales: Mapping[str, Scale],
    units: Mapping[str, str],
    images: Mapping[str, SynthesisedImage],
) -> Empty:
    """The background of a case on the network's grid: slices in which no source shows anything, and the air of slices
    with little of a body.

    scales: of the synthesised images, from network units; images: as the network makes them. A slice shows nothing where no voxel is above the background.
    Where the background is noise and data.foreground excludes slices, a slice also shows nothing where no voxel belongs
    to the body, and less than that share of the slice is above the background.
    """
    shown = tuple(shown_sources(recipe, prepared))
    least = recipe.data.foreground
    empty = np.ones(prepared.header.shape[0], bool)
    constant = empty.copy()
    volumes = [prepared.volume(name) for name in shown]
    for volume in volumes:
        blank, noise = _background_slices(volume, least)
        empty &= blank | noise
        constant &= blank
    outside = zeros(prepared.header.shape, bool)
    if (
        least > 0 and recipe.data.patch[0] == 1
    ):  # the share of one slice does not exclude patches of several slices
        outside = _far_from_the_body(volumes, EDGE * least)
        outside[empty] = False
    trained = {} if anatomy is None else anatomy.backgrounds
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
    return Empty(empty, empty & ~constant, outside, values, shown, least, surroundings, above)


def begins_above(recipe: Recipe, scales: Mapping[str, Scale]) -> dict[str, float]:
    """The beginning of each scale above 0, unless a window or a floor fixes it."""
    above = dict[str, float]()
    for name, scale in scales.items():
        spec = recipe.intensity[name]
        if spec.window is None and spec.floor is None and scale.low > 0:
            above[name] = scale.low
    return above


def _is_darkest(image: SynthesisedImage, where: NDArray[np.bool_]) -> bool:
    """Whether the network makes background there; it does not if the images of its training show the skull."""
    inside = _count(where)
    if not inside:
        return False
    dark = reduced(
        lambda values, some: np.count_nonzero(image.scale.of(values[some]) < DARK),
        image.values,
        where,
    )
    return bool(sum(dark) / inside > MOSTLY)


def _around_a_stripped_brain(volumes: Sequence[Volume]) -> NDArray[np.bool_]:
    """Voxels [D, H, W] that are 0 in all sources and not enclosed; none unless each source's background is clean."""
    nothing = zeros(volumes[0].data[0].shape, bool)
    if not all(shows(volume)[1] for volume in volumes):
        return nothing
    signal = in_slabs(_any_signal, *(volume.data[0] for volume in volumes))
    if (signal.size - _count(signal)) / signal.size < LEAST_SURROUNDINGS:
        return nothing
    return in_slabs(np.logical_not, fill_holes(signal))


def _any_signal(*images: np.ndarray) -> NDArray[np.bool_]:
    """Where some source is not 0."""
    signal: NDArray[np.bool_] = np.logical_or.reduce([image != 0 for image in images])
    return signal


def _far_from_the_body(volumes: Sequence[Volume], share: float) -> NDArray[np.bool_]:
    """Voxels farther than NEAR_MM from the body that any source shows, in slices with less body than a share."""
    body = in_slabs(
        lambda *bodies: np.logical_or.reduce(bodies), *(foreground(volume) for volume in volumes)
    )
    few = by_plane(lambda slab: slab.mean(axis=(1, 2)), body) < share
    far: NDArray[np.bool_] = zeros(body.shape, bool)
    if not _count(body):
        return far
    spacing = volumes[0].grid.spacing_mm
    reach = [int(NEAR_MM / length) + 1 for length in spacing]  # voxels, beyond which all is far
    for piece, wide in _pieces(body.shape, reach):
        if not few[piece[0]].any():
            continue
        around = body[wide]
        away = np.ones(around.shape, bool)
        if around.any():
            away = distance_transform_edt(~around, sampling=spacing) > NEAR_MM
        inside = tuple(
            slice(own.start - all_of.start, own.stop - all_of.start)
            for own, all_of in zip(piece, wide)
        )
        far[piece] = away[inside]
        release(body, far)
    far[~few] = False
    return far


def _pieces(shape: Sequence[int], reach: Sequence[int]) -> Iterator[tuple[Place, Place]]:
    """Pieces that cover a volume, each also with `reach` voxels on all its sides, as far as the volume goes.

    With them, a piece has at most half the voxels of a slab, because a distance transform takes 70 bytes for each.
    """
    size = list(shape)
    while max(size) > 1:
        padded = [min(n, m + 2 * more) for n, m, more in zip(shape, size, reach)]
        if math.prod(padded) <= slabs.SLAB // 2:
            break
        longest = max(range(3), key=lambda axis: size[axis])
        size[longest] = -(-size[longest] // 2)
    along = [[slice(k, min(k + m, n)) for k in range(0, n, m)] for n, m in zip(shape, size)]
    for piece in itertools.product(*along):
        wide = tuple(
            slice(max(0, own.start - more), min(n, own.stop + more))
            for own, more, n in zip(piece, reach, shape)
        )
        yield piece, wide


def _background_slices(volume: Volume, least: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The slices with nothing above the background, and the slices with nothing but noise."""
    image = volume.data[0]
    above, clean = shows(volume)
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
    """The background of an image in its unit: that of the training, else air in HU or 0; within the image's range."""
    value = HU_AIR if unit == "HU" else 0.0
    if trained is not None:
        value = trained
    return float(np.clip(value, scale.low, scale.high))
