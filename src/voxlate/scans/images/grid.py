"""Volumes and their grids: orientation, spacing and resampling, all in millimetres."""

from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

import numpy as np
from nibabel.affines import apply_affine, from_matvec, voxel_sizes
from nibabel.orientations import (
    aff2axcodes,
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from scipy import ndimage

from voxlate.base.array_types import Float32
from voxlate.base.errors import BadInput
from voxlate.base.messages import Message

Order = Literal[0, 1]  # of an interpolation: 0 is the nearest voxel, for labels, 1 is linear
Spacing = tuple[float, float, float]  # along D, H, W
Codes = tuple[int, int]  # of the qform and the sform of a NIfTI header
STRAIGHT = 1e-4  # voxels that a point of a grid may lie aside where its axes are those of a volume
Box = tuple[np.ndarray, np.ndarray]  # the least and the largest (x, y, z) in RAS mm


def directions(letters: str) -> np.ndarray:
    """4x4 matrix to RAS of voxel axes (x, y, z) that grow towards `letters`, three of R L A P S I: "LPS", say."""
    matrix = np.diag([0.0, 0.0, 0.0, 1.0])
    for column, (axis, sign) in enumerate(axcodes2ornt(tuple(letters))):
        matrix[int(axis), column] = sign
    return matrix


LPS_TO_RAS = directions("LPS")


@dataclass(frozen=True, eq=False)
class Grid:
    """The positions of a volume's voxels.

    Args:
        shape: (D, H, W).
        affine: 4x4, maps voxel indices (x, y, z) = (W, H, D) to RAS millimetres, as in NIfTI.
        codes: which space the affine leads to by a NIfTI file, (0, 0) where it states none, the scanner's for all other files.

    Example:
        >>> import numpy as np
        >>> from voxlate.scans.images.grid import Grid
        >>> Grid((6, 24, 20), np.diag([2.0, 2.0, 3.0, 1.0])).spacing_mm
        (3.0, 2.0, 2.0)
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    codes: Codes = (1, 1)

    @property
    def spacing_mm(self) -> Spacing:
        """Distance between neighbouring voxels along (D, H, W)."""
        x, y, z = voxel_sizes(self.affine).tolist()
        return z, y, x

    @property
    def centre_mm(self) -> np.ndarray:
        """The position (x, y, z) of the grid's centre, RAS."""
        return np.asarray(apply_affine(self.affine, (np.array(self.shape[::-1]) - 1) / 2))

    def __str__(self) -> str:
        size = "×".join(map(str, reversed(self.shape)))
        spacing = "×".join(f"{length:.2f}" for length in reversed(self.spacing_mm))
        return f"{size}, {spacing} mm"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Grid)
            and self.shape == other.shape
            and np.array_equal(self.affine, other.affine)
        )


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels in physical units, with their grid.

    Args:
        data: [C, D, H, W] float32.
        affine: 4x4, maps voxel indices (x, y, z) = (W, H, D) to RAS millimetres.
        unit: a value of units.UNITS such as "HU", or "grey" for 2-D pictures, whose values stay as stored.
        modality: name such as "t1" or "ct".
        origin: the file that was read, for messages.
        note: which part of the file was read (a frame, say).
        guesses: a message on each assumption about what the file does not state.
        codes: as those of Grid.
        body_part: that the file states; "" for none.
        not_hu: why the values cannot be Hounsfield units; "" where they can.
        kind: of a DICOM series that is no ordinary scan.

    Example:
        >>> import numpy as np, voxlate
        >>> affine = np.diag([2.0, 2.0, 3.0, 1.0])
        >>> volume = voxlate.Volume(np.zeros((1, 6, 24, 20), np.float32), affine, "HU", "ct")
        >>> str(volume.grid)
        '20×24×6, 2.00×2.00×3.00 mm'
    """

    data: np.ndarray
    affine: np.ndarray
    unit: str
    modality: str
    origin: str = ""
    note: str = ""
    guesses: tuple[Message, ...] = ()
    codes: Codes = (1, 1)
    body_part: str = ""
    not_hu: str = ""
    kind: str = ""

    def __post_init__(self) -> None:
        kind, shape = getattr(self.data, "dtype", None), getattr(self.affine, "shape", None)
        if kind != np.float32 or self.data.ndim != 4 or shape != (4, 4):
            raise BadInput(
                f"Volume: expected arrays of NumPy, float32 [C, D, H, W] and an affine [4, 4], found {type(self.data).__name__} of {kind} and an affine {shape}. Convert them."
            )

    @property
    def grid(self) -> Grid:
        """The positions of the voxels."""
        _, depth, height, width = self.data.shape
        return Grid((depth, height, width), self.affine, self.codes)


def check_affine(stated: Any, where: object) -> np.ndarray:
    """The affine in float64. Raises BadInput where it is none that gives every voxel a place of its own."""
    affine = np.asarray(stated)
    is_sound = affine.dtype.kind in "biuf" and affine.shape == (4, 4)
    if is_sound and np.isfinite(affine).all() and np.allclose(affine[3], (0, 0, 0, 1)):
        affine = affine.astype(np.float64)
        lengths = voxel_sizes(affine)
        if lengths.all() and abs(np.linalg.det(affine[:3, :3] / lengths)) >= 1e-4:
            return affine
    rows = " ".join(f"{affine}".split())
    raise BadInput(
        f"{where}: expected an affine of 4×4 finite numbers that gives every voxel a place, with the last row 0 0 0 1, found {rows}. Write the header's sform or qform again, for instance from the original DICOM files."
    )


def same_grid(a: Grid, b: Grid, tolerance_mm: float = 0.01) -> bool:
    """Whether no corner voxel differs by more than `tolerance_mm` in position (headers round to float32)."""
    if a.shape != b.shape:
        return False
    ends = [(0, length - 1) for length in reversed(a.shape)]
    corners = np.array([*product(*ends, (1,))])  # homogeneous: x, y, z, 1
    apart = (a.affine - b.affine) @ corners.T
    return bool(np.linalg.norm(apart[:3], axis=0).max() <= tolerance_mm)


def share_inside(a: Grid, b: Grid) -> float:
    """The share of 729 voxels all over `a` that are inside the box of `b`."""
    along = (np.linspace(0, length - 1, 9) for length in a.shape[::-1])
    voxels = np.stack(np.meshgrid(*along, indexing="ij"), axis=-1).reshape(-1, 3)
    there = apply_affine(np.linalg.inv(b.affine) @ a.affine, voxels)
    inside = (there > -0.5) & (there < np.array(b.shape[::-1]) - 0.5)
    return float(inside.all(axis=1).mean())


def with_spacing(grid: Grid, spacing_mm: Spacing) -> Grid:
    """The grid of the same centre and directions with spacing (D, H, W) that covers the same box.

    The box reaches half a voxel beyond the outermost centres. Where it is no whole number of new voxels, it grows
    by less than one voxel, equally on both sides.
    """
    old = np.array(grid.spacing_mm)
    voxels = np.array(grid.shape) * old / spacing_mm
    shape = np.maximum(1, np.ceil(voxels - 1e-3)).astype(int)
    return _same_centre(grid, shape, spacing_mm / old)


def with_matrix(grid: Grid, matrix: tuple[int, ...]) -> Grid:
    """The grid of the same box and directions with (H, W) pixels a slice, or (D, H, W) voxels of any sides."""
    shape = np.array([*grid.shape[: -len(matrix)], *matrix])
    return _same_centre(grid, shape, np.array(grid.shape) / shape)


def _same_centre(grid: Grid, shape: np.ndarray, factor: np.ndarray) -> Grid:
    """The grid of another shape (D, H, W) around the same centre, whose spacing is multiplied by `factor`."""
    axes = grid.affine[:3, :3] * factor[::-1]
    first = grid.centre_mm - axes @ (shape[::-1] - 1) / 2
    depth, height, width = shape.tolist()
    return Grid((depth, height, width), from_matvec(axes, first))


def orient(volume: Volume, axes: str) -> Volume:
    """Flip and permute a volume until its (x, y, z) indices grow towards `axes`, say "RAS" or "LPS"; exact."""
    view = _view_along(volume, axes)
    if view is volume:
        return volume
    return replace(view, data=np.ascontiguousarray(view.data))


def _view_along(volume: Volume, axes: str) -> Volume:
    """As `orient`, but the voxels are a view of the old ones."""
    wanted = axcodes2ornt(tuple(axes))
    change = ornt_transform(io_orientation(volume.affine), wanted)
    if np.array_equal(change, [[0, 1], [1, 1], [2, 1]]):
        return volume
    # x, y, z, then channels, which the orientation leaves alone
    data = apply_orientation(volume.data.T, change).T
    affine = volume.affine @ inv_ornt_aff(change, volume.grid.shape[::-1])
    return replace(volume, data=data, affine=affine)


def canonical(volume: Volume) -> Volume:
    """The volume with D growing to Superior, H to Anterior and W to Right, by flips and permutations alone."""
    return orient(volume, "RAS")


def canonical_view(volume: Volume) -> Volume:
    """As `canonical`, but the voxels are a view of the old ones, and not contiguous."""
    return _view_along(volume, "RAS")


def flip_onto(volume: Volume, grid: Grid, tolerance_mm: float = 0.01) -> Volume | None:
    """The volume on `grid` where flips and permutations, which are exact, suffice; else None."""
    axes = "".join(aff2axcodes(grid.affine))
    if not same_grid(_view_along(volume, axes).grid, grid, tolerance_mm):
        return None
    return replace(orient(volume, axes), affine=grid.affine, codes=grid.codes)


def return_to(volume: Volume, grid: Grid, order: Order = 1) -> Volume:
    """The volume on `grid`: bit-exact where flips and permutations suffice (undoing `canonical`), else resampled."""
    return flip_onto(volume, grid) or replace(resample(volume, grid, order), codes=grid.codes)


def resample(volume: Volume, grid: Grid, order: Order = 1, fill: float | None = None) -> Volume:
    """Interpolate a volume on `grid`, linearly or (order 0, for labels) by the nearest voxel.

    Points outside the volume's box get `fill` (default: its lowest value). Between the outermost centres and the box,
    half a voxel, the edge is continued. Nothing is smoothed: where the new spacing is much wider, smooth first.
    """
    if same_grid(volume.grid, grid, tolerance_mm=1e-6):
        return replace(volume, affine=grid.affine)
    if order:
        volume = _view_along(volume, "".join(aff2axcodes(grid.affine)))
    to_index = np.linalg.inv(volume.affine) @ grid.affine
    # scipy indexes (D, H, W), affines map (W, H, D)
    matrix = to_index[:3, :3][::-1, ::-1]
    offset = to_index[:3, 3][::-1]
    data = np.empty((len(volume.data), *grid.shape), np.float32)
    turned = np.abs(matrix - np.diag(matrix.diagonal())) @ grid.shape
    straight = order == 1 and (turned < STRAIGHT).all()
    for channel, out in zip(volume.data, data):
        if straight:
            _along_axes(channel, matrix.diagonal(), offset, out)
        else:
            ndimage.affine_transform(
                channel, matrix, offset, grid.shape, out, order=order, mode="nearest"
            )
    lowest = volume.data.min() if fill is None else fill
    # slice by slice: the coordinates of all voxels would need six times their memory
    for z in range(grid.shape[0]):
        outside = _outside(volume.grid.shape, grid.shape[1:], matrix, offset + z * matrix[:, 0])
        data[:, z, outside] = lowest
    return replace(volume, data=data, affine=grid.affine)


def _along_axes(
    image: np.ndarray, steps: np.ndarray, offset: np.ndarray, output: np.ndarray
) -> None:
    """Write the image at the places steps · index + offset; beyond its edge, it is repeated.

    Axis by axis this takes a fifth to a third of SciPy's time for any affine.
    """
    part = image
    for axis, (step, first) in enumerate(zip(steps, offset)):
        last = image.shape[axis] - 1
        exact = (step * np.arange(output.shape[axis]) + first).clip(0, last)
        lower = np.minimum(exact.astype(int), max(0, last - 1))
        share = (exact - lower).astype(np.float32).reshape(-1, *[1] * (image.ndim - 1 - axis))
        below = part.take(lower, axis).astype(np.float32, copy=False)
        part = below + share * (part.take(np.minimum(lower + 1, last), axis) - below)
    output[:] = part


def _outside(
    shape: tuple[int, ...],
    plane: tuple[int, ...],
    matrix: np.ndarray,
    offset: np.ndarray,
) -> np.ndarray:
    """Which points of a slice [H, W] are beyond the box of `shape`, half a voxel around the outermost centres."""
    beyond = np.zeros(plane, dtype=bool)
    y, x = np.ogrid[: plane[0], : plane[1]]
    for row, first, length in zip(matrix, offset, shape):
        from_centre = row[1] * y + row[2] * x + first - (length - 1) / 2
        beyond |= np.abs(from_centre) > length / 2 + 1e-4
    return beyond


def slice_margin(thickness_mm: float, spacing_mm: float) -> int:
    """Slices on each side that a slice of this thickness reaches into."""
    return max(0, int(np.ceil(thickness_mm / spacing_mm / 2 - 0.5)))


def through_plane(image: Float32, thickness_mm: float, spacing_mm: float) -> Float32:
    """Means over a rectangular slice profile, [D, ...]; the image has `slice_margin` more slices on each side."""
    reach = slice_margin(thickness_mm, spacing_mm)
    if reach == 0:
        return image
    half = thickness_mm / spacing_mm / 2
    steps = np.arange(-reach, reach + 1)
    weights = np.clip(np.minimum(steps + 0.5, half) - np.maximum(steps - 0.5, -half), 0, 1)
    weights = (weights / weights.sum()).astype(np.float32)
    depth = len(image) - 2 * reach
    out = np.zeros((depth, *image.shape[1:]), np.float32)
    for k, weight in enumerate(weights):
        out += weight * image[k : k + depth]
    return out
