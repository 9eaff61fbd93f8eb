"""The common grid of a case's scans: as they are, resampled by their headers, or registered."""

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from voxlate.base.errors import BadInput, did_you_mean
from voxlate.base.records import Name, Positive
from voxlate.scans.images.grid import (
    Grid,
    Order,
    Volume,
    resample,
    same_grid,
    share_inside,
    with_matrix,
    with_spacing,
)
from voxlate.scans.images.midline import midline_grid
from voxlate.scans.images.register import (
    Registered,
    RegistrationMethod,
    Transform,
    apply_transform,
    cover,
    register,
)

SHARED_FRAME = 0.1  # least share of the smaller scan inside the other, if headers share a frame
MOST_VOXELS = 4096  # voxels along an axis; more is a typing error
LONGEST_MM = 3000.0  # a body; a longer scan has another unit in its header
Align = Literal["midline"]
Mask = Literal["body", "brain"]


@dataclass(frozen=True)
class Preparation:
    """How a case is resampled to one grid and masked: chosen for a cohort, repeated at synthesis.

    spacing_mm: (D, H, W) or as scanned; resample: whether scans are resampled to the fixed one's grid by their headers;
    register: align every scan to the fixed one by its content; fixed: the modality whose grid is that of the case
    (default: the first). align: "midline" turns and shifts that grid until the head's mid-sagittal plane is its middle
    column. mask: the region of the mask where no mask file is given; mask_from: the modality in which a brain is found.
    matrix: (H, W), to which the slices of every case are resized, or (D, H, W), in place of a spacing.
    """

    spacing_mm: tuple[Positive, Positive, Positive] | None = None
    resample: bool = False
    register: RegistrationMethod | None = None
    fixed: Name | None = None
    align: Align | None = None
    mask: Mask = "body"
    mask_from: Name | None = None
    matrix: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.spacing_mm and not min(self.spacing_mm) > 0:
            raise BadInput(
                f"--spacing-mm: expected three lengths above 0 mm, found {_in_xyz(self.spacing_mm)} (x y z). Change it."
            )
        if not self.matrix:
            return
        if self.spacing_mm:
            raise BadInput("--matrix: expected --matrix or --spacing-mm, found both. Drop one.")
        if not 1 < min(self.matrix) <= max(self.matrix) <= MOST_VOXELS:
            raise BadInput(
                f"--matrix: expected columns, rows and, if wanted, slices from 2 to {MOST_VOXELS}, found {_in_xyz(self.matrix)}. Change it."
            )

    @property
    def changes_voxels(self) -> bool:
        """Whether the size of voxels is asked for, directly or by the number of pixels."""
        return bool(self.spacing_mm or self.matrix)


def _in_xyz(sizes: tuple[float, ...]) -> str:
    """Sizes along the axes of an array as the command line takes them."""
    return " ".join(f"{size:g}" for size in reversed(sizes))


@dataclass(frozen=True, eq=False)
class CommonGrid:
    """The common grid of a case's scans, their own grids (canonical), and the transforms between them.

    fixed: the name and the file of the scan that determines the grid; resized: whether scans are pictures without a
    place, all of which are resized to it.
    """

    grid: Grid
    grids: dict[str, Grid]
    fixed: tuple[str, str]
    resample: bool
    resized: bool
    registered: dict[str, Registered] = field(default_factory=dict)
    transforms: dict[str, Transform] = field(default_factory=dict)

    def align(self, name: str, volume: Volume) -> Volume:
        """A scan on the grid; raises BadInput where it has another grid and may not be resampled."""
        return self._resample(volume, self.transforms.get(name), 1)

    def align_labels(self, labels: Volume) -> Volume:
        """A mask or label map on the grid, moved with the scan whose grid it was drawn on."""
        names = (self.fixed[0], *self.transforms)
        drawn_on = next((name for name in names if same_grid(labels.grid, self.grids[name])), "")
        return self._resample(labels, self.transforms.get(drawn_on), 0)

    def cover(self) -> np.ndarray:
        """Where every scan that was registered has voxels: bool [D, H, W]."""
        covered = np.ones(self.grid.shape, bool)
        for name, transform in self.transforms.items():
            covered &= cover(self.grids[name], self.grid, transform)
        return covered

    def _resample(self, volume: Volume, transform: Transform | None, order: Order) -> Volume:
        if transform is not None:
            return apply_transform(volume, self.grid, transform, order, None if order else 0.0)
        name, file = self.fixed
        fixed_grid = self.grids[name]
        if self.resized:
            volume = replace(volume, affine=with_matrix(fixed_grid, volume.grid.shape[1:]).affine)
        differs = not same_grid(volume.grid, fixed_grid)
        if differs and not self.resample:
            raise _other_grid(volume, fixed_grid, file)
        if same_grid(volume.grid, self.grid):
            return volume
        resampled = resample(volume, self.grid, order=order)
        if differs and np.ptp(resampled.data) == 0 < np.ptp(volume.data):
            raise BadInput(
                f"{volume.origin}: expected it to overlap {file} in space, found nothing of it there. Their headers do not share a frame: voxlate prepare --register rigid aligns them by their content."
            )
        return resampled


def find_common_grid(case: str, scans: dict[str, Volume], preparation: Preparation) -> CommonGrid:
    """Choose the grid of a case and register its scans to it where that is asked for."""
    name = preparation.fixed or next(iter(scans))
    if name not in scans:
        advice = f"Name another one by --fixed, or leave the case out (--exclude {case})."
        raise BadInput(
            f"case {case}: expected the modality {name}, to whose grid the others are resampled, found {', '.join(scans)}. {did_you_mean(name, scans) or advice}"
        )
    fixed = scans[name]
    grid = midline_grid(fixed) if preparation.align == "midline" else fixed.grid
    grid = _resize(grid, preparation, f"{case}: {name}")
    grids = {other: volume.grid for other, volume in scans.items()}
    resized = fixed.unit == "grey" and preparation.matrix is not None
    may_resample = preparation.resample or preparation.register is not None or resized
    common = CommonGrid(grid, grids, (name, fixed.origin or name), may_resample, resized)
    method = preparation.register
    if method is None:
        return common
    for other in [other for other in scans if other != name]:
        found, transform = register(scans[other], fixed, method)
        file = ""
        if found.kept != "none":
            common.transforms[other] = transform
            file = f"transforms/{case}/{other}.tfm"
        common.registered[other] = replace(found, to=name, transform=file)
    return common


def _resize(grid: Grid, preparation: Preparation, scan: str) -> Grid:
    """The grid in the size of voxels that is asked for; raises BadInput where that of the scan cannot be in mm."""
    if preparation.matrix:
        return with_matrix(grid, preparation.matrix)
    if not preparation.spacing_mm:
        return grid
    longest_mm = max(length * side for length, side in zip(grid.shape, grid.spacing_mm))
    if longest_mm > LONGEST_MM:
        raise BadInput(
            f"{scan}: expected a scan of at most {LONGEST_MM / 1000:g} m, as a body is, found {longest_mm / 1000:.3g} m of {max(grid.shape)} voxels. Check the unit of the voxel size in its header, which is mm."
        )
    return with_spacing(grid, preparation.spacing_mm)


def _other_grid(volume: Volume, fixed_grid: Grid, file: str) -> BadInput:
    """The error of a scan on another grid than the fixed one, with the remedy."""
    apart_mm = np.linalg.norm(volume.affine[:3, 3] - fixed_grid.affine[:3, 3])
    advice = "Give scans on one grid, or prepare them with --resample (by headers) or --register (by content), which synth of the run repeats."
    shared = max(share_inside(volume.grid, fixed_grid), share_inside(fixed_grid, volume.grid))
    if shared < SHARED_FRAME:
        advice = "Their headers share no frame: align the two by their content (--register rigid), and look at the result."
    elif volume.unit == "grey":
        advice = "Pass --matrix 256 256 0, for instance, which resizes every picture."
    return BadInput(
        f"{volume.origin or volume.modality}: expected the grid of {file} ({fixed_grid}), found {volume.grid}, its first voxel {apart_mm:.2f} mm away. {advice}"
    )
