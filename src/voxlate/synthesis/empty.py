"""Slices in which no source shows more than its background: they become background, whatever the network predicts.

Training excludes slices with little body (data.foreground, data.slices), so that networks invent a signal in them.
Therefore slices without a body become background as a whole, and slices with about as little body as the training had
become background away from the body.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from voxlate.data.anatomy import Anatomy
from voxlate.data.case import PreparedCase
from voxlate.images.grid import Volume
from voxlate.images.intensity import Scale
from voxlate.images.mask import foreground, shows
from voxlate.recipe import Recipe
from voxlate.synthesis.inputs import shown_sources
from voxlate.synthesis.intervals import OutputGrid
from voxlate.synthesis.result import SynthesisedImage

WHOLE = 1 - 1e-4  # share of an output voxel inside such slices, from which it counts as inside
HU_AIR = -1000.0
EDGE = 2.0  # times data.foreground: slices with less body are rare in training, or absent from it
NEAR_MM = 5.0  # from the body, within which the network decides in such slices: only it may show scalp and skin


@dataclass(frozen=True)
class Empty:
    """The slices [D] of the network's grid that are background, and those of them with noise in some source.

    outside: voxels [D, H, W] away from the body in other slices with little of it; values: the background of each image
    in its unit; sources: the modalities that show nothing there; foreground: the least share of body in a slice of the
    training.
    """

    slices: NDArray[np.bool_]
    noise: NDArray[np.bool_]
    outside: NDArray[np.bool_]
    values: Mapping[str, float]
    sources: tuple[str, ...]
    foreground: float

    @property
    def any(self) -> bool:
        return bool(self.slices.any() or self.outside.any())

    def filled(self, images: Mapping[str, SynthesisedImage]) -> dict[str, SynthesisedImage]:
        """The images with background in these voxels, and a standard deviation of 0."""
        return {name: self._filled(image, self.values[name]) for name, image in images.items()}

    def _filled(self, image: SynthesisedImage, value: float) -> SynthesisedImage:
        voxels = self._voxels()
        values = image.values.copy()
        values[voxels] = value
        sd = image.prediction.sd
        if sd is not None:
            sd = sd.copy()
            sd[voxels] = 0
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
        share = output_grid.written(self._voxels().astype(np.float32), "", "").data
        inside = share > WHOLE
        partly = share > 0
        lower = dict[str, Volume]()
        upper = dict[str, Volume]()
        for name in low:
            image = volumes[name].data
            least = np.where(partly, np.minimum(low[name].data, image), low[name].data)
            most = np.where(partly, np.maximum(high[name].data, image), high[name].data)
            lower[name] = replace(low[name], data=np.where(inside, image, least))
            upper[name] = replace(high[name], data=np.where(inside, image, most))
        return lower, upper

    def _voxels(self) -> NDArray[np.bool_]:
        return self.outside | self.slices[:, None, None]

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
        if self.outside.any():
            parts.append(
                f"{self._little_body} slices have less body than training usually saw (below {EDGE * self.foreground:.0%}): farther than {NEAR_MM:g} mm from it they were set to background"
            )
        return "; ".join(parts) + "." if parts else ""

    @property
    def _little_body(self) -> int:
        """The number of slices with little of the body."""
        return int(self.outside.any(axis=(1, 2)).sum())

    @property
    def stated(self) -> dict[str, Any]:
        """The entry of a provenance; {} where nothing was filled."""
        if not self.any:
            return {}
        return {
            "slices": int(self.slices.sum()),
            "noise": int(self.noise.sum()),
            "slices_with_little_body": self._little_body,
            "voxels": int(self._voxels().sum()),
            "values": {name: round(value, 4) for name, value in self.values.items()},
        }


def empty_slices(
    recipe: Recipe,
    prepared: PreparedCase,
    anatomy: Anatomy | None,
    scales: Mapping[str, Scale],
    units: Mapping[str, str],
) -> Empty:
    """The background of a case on the network's grid: slices in which no source shows anything, and the air of slices
    with little of a body.

    scales: of the synthesised images, from network units. A slice shows nothing where no voxel is above the background.
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
    outside = np.zeros(prepared.header.shape, bool)
    if (
        least > 0 and recipe.data.patch[0] == 1
    ):  # the share of one slice does not exclude patches of several slices
        outside = _far_from_the_body(volumes, EDGE * least)
        outside[empty] = False
    trained = {} if anatomy is None else anatomy.backgrounds
    values = {
        name: background_of(scale, units[name], trained.get(name)) for name, scale in scales.items()
    }
    return Empty(empty, empty & ~constant, outside, values, shown, least)


def _far_from_the_body(volumes: Sequence[Volume], share: float) -> NDArray[np.bool_]:
    """Voxels farther than NEAR_MM from the body that any source shows, in slices with less body than a share."""
    body = np.logical_or.reduce([foreground(volume) for volume in volumes])
    few = (body.mean(axis=(1, 2)) < share) & body.any()
    if not few.any():
        return np.zeros(body.shape, bool)
    far: NDArray[np.bool_] = (
        distance_transform_edt(~body, sampling=volumes[0].grid.spacing_mm) > NEAR_MM
    )
    far[~few] = False
    return far


def _background_slices(volume: Volume, least: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The slices with nothing above the background, and the slices with nothing but noise."""
    image = volume.data[0]
    above, clean = shows(volume)
    share = above.mean(axis=(1, 2))
    if clean:
        return share == 0, np.zeros(len(image), bool)
    constant = image.min(axis=(1, 2)) == image.max(axis=(1, 2))
    blank = (share == 0) & (constant | (volume.unit == "HU"))
    noise = ~blank & (share < least)
    if noise.any():  # the foreground is computed only where it matters
        noise &= ~foreground(volume).any(axis=(1, 2))
    return blank, noise


def background_of(scale: Scale, unit: str, trained: float | None) -> float:
    """The background of an image in its unit: that of the training, else air in HU or 0; within the image's range."""
    value = HU_AIR if unit == "HU" else 0.0
    if trained is not None:
        value = trained
    return float(np.clip(value, scale.low, scale.high))
