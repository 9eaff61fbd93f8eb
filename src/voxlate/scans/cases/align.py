"""The common grid of a case's scans: as they are, resampled by their headers, or registered."""

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from voxlate.base.errors import BadInput, did_you_mean
from voxlate.base.records import Name, Positive
from voxlate.scans.formats.format import check_volume
from voxlate.scans.images.grid import (
    Grid,
    Order,
    Volume,
    resample,
    same_grid,
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

MOST_VOXELS = 4096  # voxels along an axis; more is a typing error
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
    if preparation.matrix:
        grid = with_matrix(grid, preparation.matrix)
    elif preparation.spacing_mm:
        grid = with_spacing(grid, preparation.spacing_mm)
    check_volume(grid.shape, f"case {case}")
    grids = {other: volume.grid for other, volume in scans.items()}
    resized = fixed.unit == "grey" and preparation.matrix is not None
    may_resample = preparation.resample or preparation.register is not None or resized
    common = CommonGrid(grid, grids, (name, fixed.origin or name), may_resample, resized)
    method = preparation.register
    if method is None:
        return common
    for other in [other for other in scans if other != name]:
        common.registered[other], transform = register(scans[other], fixed, method)
        if common.registered[other].kept != "none":
            common.transforms[other] = transform
    return common


def _other_grid(volume: Volume, fixed_grid: Grid, file: str) -> BadInput:
    """The error of a scan on another grid than the fixed one."""
    apart_mm = np.linalg.norm(volume.affine[:3, 3] - fixed_grid.affine[:3, 3])
    return BadInput(
        f"{volume.origin or volume.modality}: expected the grid of {file} ({fixed_grid}), found {volume.grid}, its first voxel {apart_mm:.2f} mm away. Prepare with --resample (by headers), --register rigid (by content, where headers share no frame), or, for pictures, --matrix 256 256 0; synth of the run repeats it."
    )
