"""Where the two sides of a brain differ more than those of healthy brains do, as beside a tumour."""

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.checks.table import Numbers
from voxlate.scans.images.filters import ndimage
from voxlate.scans.images.grid import Volume, resample, with_spacing
from voxlate.scans.images.mask import box_around, erode, foreground, largest
from voxlate.scans.images.midline import midline_grid

FINE_MM = 2.0  # voxels in which the sides are compared
BLUR_MM = 6.0  # folds of one side have no counterpart on the other
RIM_MM = 8.0  # from the surface, where a small tilt makes a large difference
APART = 1.0  # standard deviations of the brain


def sides_of(brain: Volume) -> Numbers:
    """The largest region of a canonical brain that differs from its mirror image: its volume, and where it is.

    volume_ml: of the region on one side; aside_mm: from the plane of symmetry to its centre; up, front: its place along the
    brain's height and from its back, as shares. Nothing of a brain without a plane of symmetry or such a region.
    """
    try:
        grid = midline_grid(brain)
    except (BadInput, ImportError):  # no plane of symmetry, or no SciPy (voxlate-run)
        return {}
    straight = resample(brain, with_spacing(grid, (FINE_MM,) * 3))
    body = foreground(straight)
    inside = erode(body & body[..., ::-1], RIM_MM, straight.grid.spacing_mm)
    if not inside.any():
        return {}
    share = ndimage.gaussian_filter(body.astype(np.float32), BLUR_MM / FINE_MM)
    values = np.where(body, straight.data[0] - np.median(straight.data[0][body]), 0)
    smooth = ndimage.gaussian_filter(values, BLUR_MM / FINE_MM) / np.maximum(share, 0.1)
    apart = np.abs(smooth - smooth[..., ::-1]) / max(float(values[inside].std()), 1e-9)
    region = largest(inside & (apart > APART))
    if not region.any():
        return {}
    # both sides of the plane differ where one does
    middle = ndimage.center_of_mass(region)
    low, end = np.transpose(box_around(body))
    up, front, _ = (middle - low) / np.maximum(end - 1 - low, 1)
    return {
        "volume_ml": float(region.sum()) * FINE_MM**3 / 1000,
        "aside_mm": abs(middle[2] - (body.shape[2] - 1) / 2) * FINE_MM,
        "up": float(up),
        "front": float(front),
    }
