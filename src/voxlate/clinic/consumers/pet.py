"""PET: the linear attenuation coefficient at 511 keV on the grid of a PET.

Source: Carney, Townsend, Rappoport and Bendriem 2006 (Med. Phys. 33:976): below the break point
mu = 9.6e-5 (HU + 1000), above it mu = a (HU + 1000) + b, in 1/cm.
"""

from dataclasses import replace

import numpy as np
from scipy import ndimage

from voxlate.base.errors import BadInput
from voxlate.base.slabs import in_slabs
from voxlate.clinic.consumers.maps import within
from voxlate.scans.images.grid import Grid, Volume, resample

WATER_SLOPE = 9.6e-5
WATER_MU = 0.096  # 1/cm, by the formula at 0 HU
# By kVp: a in 1/cm, b in 1/cm, break point in HU + 1000.
CARNEY = {
    80: (3.64e-5, 6.26e-2, 1050.0),
    100: (4.43e-5, 5.44e-2, 1052.0),
    110: (4.92e-5, 4.88e-2, 1043.0),
    120: (5.10e-5, 4.71e-2, 1047.0),
    130: (5.51e-5, 4.24e-2, 1037.0),
    140: (5.64e-5, 4.08e-2, 1030.0),
}


def coefficients(kvp: float) -> tuple[float, float, float]:
    """a, b and the break point in HU + 1000 of a tube voltage; raises BadInput where the source has none for it."""
    if kvp not in CARNEY:
        known = ", ".join(map(str, CARNEY))
        raise BadInput(
            f"--kvp: expected a tube voltage with published coefficients ({known} kVp), found {kvp:g}. Choose one of these."
        )
    return CARNEY[int(kvp)]


def mu_511(hu: np.ndarray, kvp: float = 120) -> np.ndarray:
    """Linear attenuation at 511 keV in 1/cm of a CT in HU, by its tube voltage in kVp; never below 0.

    Raises BadInput for a voltage that the source has no coefficients for.
    """
    a, b, break_point = coefficients(kvp)

    def convert(slab: np.ndarray) -> np.ndarray:
        """The bilinear map of some voxels."""
        raised = slab + 1000.0
        mu = np.where(raised < break_point, WATER_SLOPE * raised, a * raised + b)
        return np.maximum(mu, 0).astype(np.float32)

    return in_slabs(convert, hu)


def on_pet_grid(mu: Volume, pet: Grid, name: str) -> tuple[Volume, float]:
    """Attenuation on the grid of a PET, 0 outside the CT, and the share of the PET's grid within the CT.

    Raises BadInput where the grids do not overlap.
    """
    share = float(within(mu, pet).mean())
    if share == 0:
        raise BadInput(
            f"--like {name}: expected a PET whose grid overlaps the CT, found none of its voxels within the CT ({pet}; CT {mu.grid}). Register the two first."
        )
    return _averaged(mu, pet), share


def _averaged(mu: Volume, grid: Grid) -> Volume:
    """A map on another grid, 0 outside its own; where voxels of the grid are wider, a mean over two of them.

    The weights are those of linear interpolation the other way round, so that a thin plate keeps its sum wherever it lies
    between the voxels.
    """
    # sides of the grid's voxels along the axes of the map, in voxels of it
    widths = np.abs(np.linalg.inv(mu.affine)[:3, :3] @ grid.affine[:3, :3]).max(axis=1)[::-1]
    data = mu.data[0]
    for axis, width in enumerate(widths):
        reach = int(width)
        weights = np.maximum(0, 1 - np.abs(np.arange(-reach, reach + 1)) / max(width, 1))
        data = ndimage.correlate1d(data, weights / weights.sum(), axis, mode="nearest")
    return resample(replace(mu, data=data[None]), grid, fill=0.0)


def add_couch(mu: Volume, couch: Volume) -> Volume:
    """Attenuation with that of a couch (1/cm, on any grid) added; raises BadInput for values that are no attenuation."""
    least, most = float(couch.data.min()), float(couch.data.max())
    if least < 0 or most > 10 * WATER_MU:
        raise BadInput(
            f"--couch: expected attenuation in 1/cm from 0 to {10 * WATER_MU:g}, found {least:g} to {most:g}. Convert the file."
        )
    if not within(couch, mu.grid).any():
        raise BadInput(
            f"--couch: expected a map that overlaps the PET's grid, found {couch.grid} elsewhere. Register it first."
        )
    return replace(mu, data=mu.data + _averaged(couch, mu.grid).data)
