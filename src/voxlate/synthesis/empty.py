"""Where no source shows more than its background, the image is background, whatever a network says.

Training leaves slices with little body out (data.foreground, data.slices), so that networks invent a signal in them.
So slices without body are background as a whole, and slices with about as little body as training saw are background
away from the body.
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
from voxlate.synthesis.intervals import OutputGrid
from voxlate.synthesis.result import SynthesisedImage

WHOLE = 1 - 1e-4  # share of a written voxel that lies in such slices, from which it is of them alone
HU_AIR = -1000.0
EDGE = 2.0  # times data.foreground: slices with less body are rare in training, or were never in it
NEAR_MM = 5.0  # from the body, within which the network decides in such slices: scalp and skin may show nowhere else


@dataclass(frozen=True)
class Empty:
    """Which slices [D] of the network's grid are background, and which of these hold noise in some source.

    outside: voxels [D, H, W] away from the body in further slices with little of it; values: the background of each
    image in its unit; sources: those that show nothing there; foreground: the least share of a slice that training
    learned from.
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
        """The images with their background in these voxels, where no sample differs from another."""
        return {name: self._filled(one, self.values[name]) for name, one in images.items()}

    def _filled(self, made: SynthesisedImage, value: float) -> SynthesisedImage:
        values, sd, voxels = made.values.copy(), made.image.sd, self._voxels()
        values[voxels] = value
        if sd is not None:
            sd = sd.copy()
            sd[voxels] = 0
        return replace(made, values=values, image=replace(made.image, sd=sd))

    def closed(
        self,
        low: Mapping[str, Volume],
        high: Mapping[str, Volume],
        written: Mapping[str, Volume],
        output_grid: OutputGrid,
    ) -> tuple[dict[str, Volume], dict[str, Volume]]:
        """Lower and upper ends of intervals on the file's voxels: both are the background in these voxels.

        Where the file has other slices, and a voxel lies partly in one of these, the ends are moved to hold the image.
        """
        share = output_grid.written(self._voxels().astype(np.float32), "", "").data
        lower, upper = dict[str, Volume](), dict[str, Volume]()
        for name in low:
            image, alone, partly = written[name].data, share > WHOLE, share > 0
            least = np.where(partly, np.minimum(low[name].data, image), low[name].data)
            most = np.where(partly, np.maximum(high[name].data, image), high[name].data)
            lower[name] = replace(low[name], data=np.where(alone, image, least))
            upper[name] = replace(high[name], data=np.where(alone, image, most))
        return lower, upper

    def _voxels(self) -> NDArray[np.bool_]:
        return self.outside | self.slices[:, None, None]

    @property
    def note(self) -> str:
        """A sentence on what was filled; empty where nothing was."""
        parts = []
        values = " and ".join(f"{value:.4g} in {name}" for name, value in self.values.items())
        if self.slices.any():
            count, noisy = int(self.slices.sum()), int(self.noise.sum())
            limit = f"less than data.foreground = {self.foreground:g} of the slice"
            noise = f" ({noisy} of them hold noise, or {limit} outside the body)" if noisy else ""
            parts.append(
                f"{count} of {len(self.slices)} slices show only background in {' and '.join(self.sources)}{noise}: "
                f"they were set to background, which is {values}"
            )
        if self.outside.any():
            count = int(self.outside.any(axis=(1, 2)).sum())
            parts.append(
                f"{count} slices have less body than training usually saw (below {EDGE * self.foreground:.0%}): "
                f"farther than {NEAR_MM:g} mm from it they were set to background"
            )
        return "; ".join(parts) + "." if parts else ""

    @property
    def stated(self) -> dict[str, Any]:
        """What a provenance says of it; empty where nothing was filled."""
        if not self.any:
            return {}
        return {
            "slices": int(self.slices.sum()),
            "noise": int(self.noise.sum()),
            "slices_with_little_body": int(self.outside.any(axis=(1, 2)).sum()),
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
    """What is background in a case, laid out for the network: slices in which no source shows anything, and the air of
    those that hold little of a body.

    scales: of the images that are made, from network units. A slice shows nothing where no voxel is above the
    background; where the background is noise and data.foreground leaves slices out, also where no voxel belongs to the
    body and fewer than that share of the slice are above the background.
    """
    shown = tuple(name for name in recipe.data.source if name in prepared.header.shown)
    least, depth = recipe.data.foreground, prepared.header.shape[0]
    empty, constant = np.ones(depth, bool), np.ones(depth, bool)
    volumes = [prepared.volume(name) for name in shown]
    for volume in volumes:
        blank, noise = _background_slices(volume, least)
        empty &= blank | noise
        constant &= blank
    outside = np.zeros(prepared.header.shape, bool)
    if least > 0 and recipe.data.patch[0] == 1:  # of patches of several slices the share of one decides nothing
        outside = _far_from_the_body(volumes, EDGE * least)
        outside[empty] = False
    known = {} if anatomy is None else anatomy.backgrounds
    values = {name: background_of(scale, units[name], known.get(name)) for name, scale in scales.items()}
    return Empty(empty, empty & ~constant, outside, values, shown, least)


def _far_from_the_body(volumes: Sequence[Volume], share: float) -> NDArray[np.bool_]:
    """Voxels farther than NEAR_MM from the body that any source shows, in slices with less body than a share."""
    body = np.logical_or.reduce([foreground(one) for one in volumes])
    few = (body.mean(axis=(1, 2)) < share) & body.any()
    if not few.any():
        return np.zeros(body.shape, bool)
    far: NDArray[np.bool_] = distance_transform_edt(~body, sampling=volumes[0].grid.spacing_mm) > NEAR_MM
    far[~few] = False
    return far


def _background_slices(volume: Volume, least: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which slices hold nothing above the background, and which noise alone."""
    image = volume.data[0]
    above, clean = shows(volume)
    share = above.mean(axis=(1, 2))
    if clean:
        return share == 0, np.zeros(len(image), bool)
    constant = image.min(axis=(1, 2)) == image.max(axis=(1, 2))
    blank = (share == 0) & (constant | (volume.unit == "HU"))
    noise = ~blank & (share < least)
    if noise.any():  # a body is looked for only where it matters
        noise &= ~foreground(volume).any(axis=(1, 2))
    return blank, noise


def background_of(scale: Scale, unit: str, known: float | None) -> float:
    """The background of an image in its unit: that of the training, else air in HU and 0; as far as images reach."""
    value = known if known is not None else HU_AIR if unit == "HU" else 0.0
    return float(np.clip(value, scale.low, scale.high))
