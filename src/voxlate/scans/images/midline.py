"""The mid-sagittal plane of a head, found as the plane about which it is most similar to its mirror image."""

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
from nibabel.affines import from_matvec
from scipy import ndimage

from voxlate.base.errors import BadInput
from voxlate.scans.images.grid import Grid, Volume, resample, with_spacing
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.misalignment import downhill

COARSE_MM = 4.0  # spacing of the search; interpolation between smooth voxels resolves a tenth of it
MOST_POINTS = 20_000
TURNS_DEG = np.arange(
    -24.0, 25.0, 4.0
)  # where the search begins, with these shifts from the head's middle
ASIDE_MM = (-8.0, 0.0, 8.0)
STEPS = np.array([3.0, 3.0, 4.0])  # degrees, degrees, mm: of the simplex
RIM_MM = 80.0  # half the width of a head, where a turn moves most
LEAST_MOVE = 0.25  # voxels at the rim; less is not worth the blur of an interpolation
LEAST_HEIGHT_MM = 40.0  # below it a tilt cannot be estimated
# correlation of a head with its mirror image: 0.7 to 0.9, with a large tumour down to 0.3
LEAST_CORRELATION = 0.3
WINDOW_HU = (-100.0, 300.0)  # fat to bone; denser bone, metal and contrast agent vary


@dataclass(frozen=True)
class Midline:
    """The plane n · p = shift_mm, of points p = (right, anterior, superior) in mm from the grid's centre.

    n = (cos turn cos tilt, sin turn cos tilt, sin tilt): a positive turn rotates the right side to the front, a
    positive tilt upwards.
    """

    turn_deg: float
    tilt_deg: float
    shift_mm: float

    @property
    def rotation(self) -> np.ndarray:
        """The 3x3 rotation of (x, y, z) that turns the x axis into the plane's normal."""
        from scipy.spatial.transform import Rotation  # slow to import

        turns = [self.turn_deg, -self.tilt_deg]
        return Rotation.from_euler("ZY", turns, degrees=True).as_matrix()

    @property
    def move_mm(self) -> float:
        """The largest displacement of the head's rim from the symmetric position."""
        return abs(self.shift_mm) + RIM_MM * math.radians(math.hypot(self.turn_deg, self.tilt_deg))


def find_midline(volume: Volume) -> Midline:
    """The mid-sagittal plane of a canonical volume of a head.

    Raises BadInput where no plane makes it similar to its mirror image.
    """
    simple = _simplify(volume)
    image, spacing = simple.data[0], np.array(simple.grid.spacing_mm)
    centre = (np.array(image.shape) - 1) / 2
    inside = np.argwhere(image > 0)
    inside = inside[:: max(1, round(len(inside) / MOST_POINTS))]
    points = ((inside - centre) * spacing)[:, ::-1]  # x, y, z in mm
    values = image[tuple(inside.T)]
    free = [0, 1, 2] if len(image) * spacing[0] >= LEAST_HEIGHT_MM else [0, 2]

    def mirrored(plane: np.ndarray) -> np.ndarray:
        """The values at the mirror images of all points; beyond the top and bottom slices these are repeated."""
        normal = Midline(*plane).rotation[:, 0]
        mirror = points - 2 * (points @ normal - plane[2])[:, None] * normal
        places = (mirror[:, ::-1] / spacing + centre).T
        places[0] = places[0].clip(0, len(image) - 1)
        return ndimage.map_coordinates(image, places, order=1, mode="constant")

    def cost(plane: np.ndarray) -> float:
        """The mean squared difference of the head and its mirror image."""
        return float(np.mean((mirrored(plane) - values) ** 2))

    def with_free(plane: np.ndarray, found: np.ndarray) -> np.ndarray:
        """A plane with other values of what is sought."""
        moved = plane.copy()
        moved[free] = found
        return moved

    starts = []
    for turn, aside in product(TURNS_DEG, ASIDE_MM):
        shift = points.mean(axis=0) @ Midline(turn, 0.0, 0.0).rotation[:, 0] + aside
        starts.append(np.array([turn, 0.0, shift]))
    start = min(starts, key=cost)
    found = downhill(
        lambda values: cost(with_free(start, values)), start[free], STEPS[free], 0.02, 1e-9
    )
    best = with_free(start, found)
    # not a number where the head or its mirror image has one value
    with np.errstate(invalid="ignore"):
        correlation = float(np.corrcoef(mirrored(best), values)[0, 1])
    if not correlation >= LEAST_CORRELATION:
        raise BadInput(
            f"{volume.origin or volume.modality}: expected a head whose sides mirror each other, found a correlation of {correlation:.2f} at best. Align this case by another scan (--fixed), or leave --align out."
        )
    return Midline(*best.tolist())


def midline_grid(volume: Volume) -> Grid:
    """The grid of a canonical volume, turned, tilted and shifted sideways until the midline is its middle column.

    A head whose midline is there already (within a quarter of a voxel at its rim) keeps its grid.
    """
    grid = volume.grid
    midline = find_midline(volume)
    if midline.move_mm < LEAST_MOVE * grid.spacing_mm[2]:
        return grid
    spacing = np.diag([*grid.spacing_mm[::-1], 1.0])
    centre = spacing[:3, :3] @ (np.array(grid.shape[::-1]) - 1) / 2
    shift = midline.shift_mm * midline.rotation[:, 0]
    move = from_matvec(midline.rotation, shift + centre - midline.rotation @ centre)
    return Grid(grid.shape, grid.affine @ np.linalg.inv(spacing) @ move @ spacing)


def _simplify(volume: Volume) -> Volume:
    """The head alone, windowed to [0, 1] and smoothed, with voxels of about COARSE_MM."""
    inside = foreground(volume)
    image = volume.data[0]
    low, high = WINDOW_HU
    if volume.unit != "HU":
        low, high = np.percentile(image[inside], [1, 99]).tolist()
    scaled = np.clip((image - low) / max(high - low, 1e-9), 0, 1)
    shades = np.where(inside, scaled + 1e-3, 0).astype(np.float32)
    spacing = volume.grid.spacing_mm
    depth, height, width = np.maximum(spacing, COARSE_MM).tolist()
    blur = [0.5 * new / old for new, old in zip((depth, height, width), spacing)]
    smooth = ndimage.gaussian_filter(shades, blur)
    smooth[~inside] = 0
    straight = Volume(smooth[None], np.diag([*spacing[::-1], 1.0]), "", "")
    return resample(straight, with_spacing(straight.grid, (depth, height, width)), fill=0.0)
