"""What a calibration says of the images of a case, on the voxels that they are written on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from voxlate.data.case import PreparedCase
from voxlate.images.grid import Grid, oriented, return_to
from voxlate.images.volume import Volume
from voxlate.synthesis.made import Made
from voxlate.trust.calibration import Calibration, Image
from voxlate.trust.regions import parts_of


@dataclass(frozen=True)
class Lattice:
    """The voxels of the file that images of a case are written like: of the first source, or of the fixed scan.

    affine: of the network's grid; axes: how slices are laid out for the network. Where nothing was resampled both grids
    have the same voxels, and all moves are exact.
    """

    affine: np.ndarray
    file: Grid
    axes: str

    def written(self, values: np.ndarray, modality: str, unit: str, order: Literal[0, 1] = 1) -> Volume:
        """Values [D, H, W] of the network's grid as they are written."""
        return return_to(
            Volume(values[None].astype(np.float32, copy=False), self.affine, unit, modality), self.file, order
        )

    def laid(self, volume: Volume) -> Volume:
        """A written volume with slices as they are laid out for the network."""
        return oriented(volume, self.axes[::-1])

    def seen(self, values: np.ndarray) -> np.ndarray:
        """Values [D, H, W] of the network's grid on the file's voxels, laid out for the network."""
        return self.laid(self.written(values, "", "")).data[0]

    def image(self, image: Image) -> Image:
        """The same on the file's voxels."""
        parts = (image.made, image.sd, image.low, image.high)
        made, sd, low, high = (None if one is None else self.seen(one) for one in parts)
        assert made is not None
        return Image(made, sd, low, high)


def lattice_of(prepared: PreparedCase, axes: str) -> Lattice:
    """Where the images of a prepared case are written."""
    origins = prepared.header.origins
    # where scans were registered, the image lies in the frame of the one that they were registered to
    fixed = [one.to for one in prepared.header.registered.values() if one.kept != "none"]
    first = origins[fixed[0]] if fixed else next(iter(origins.values()))
    return Lattice(np.array(prepared.header.affine), first.grid, axes)


@dataclass(frozen=True)
class Trusted:
    """Of each image, in physical units: between which values the truth lies, and what a case's errors are at most."""

    low: dict[str, Volume]
    high: dict[str, Volume]
    bounds: dict[str, dict[str, float]]


def trusted(
    calibration: Calibration,
    images: Mapping[str, Made],
    sources: Sequence[np.ndarray],
    lattice: Lattice,
    units: Mapping[str, str],
) -> Trusted:
    """The intervals and bounds of the images of a case; sources: in network units, on the network's grid."""
    found = Trusted({}, {}, {})
    given = [lattice.seen(one) for one in sources]
    for name, one in images.items():
        own = lattice.image(one.image)
        ends = calibration.interval(name, own, given)
        laid = lattice.laid(lattice.written(one.values, name, units[name]))
        for maps, values in zip((found.low, found.high), ends):
            physical = Volume(one.scale.inverse(values)[None], laid.affine, units[name], name)
            maps[name] = return_to(physical, lattice.file)
        parts = parts_of(calibration.header.targets[name].regions, laid)
        half = (one.scale.high - one.scale.low) / 2
        stated = calibration.bounds(name, *ends, parts)
        found.bounds[name] = {key: round(value * half, 4) for key, value in stated.items()}
    return found
