"""How the scans of a case come to one grid: as they are, by their headers, or registered."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from voxlate.data.prepared import Registered, transform_name
from voxlate.errors import BadInput
from voxlate.images.grid import Grid, resample, same_grid, with_spacing
from voxlate.images.midline import midline_grid
from voxlate.images.register import RegistrationMethod, Transform, apply_transform, covered, register
from voxlate.images.volume import Volume

Align = Literal["midline"]
Mask = Literal["body", "brain"]


@dataclass(frozen=True)
class Bringing:
    """How a case comes to one grid, and to its mask.

    spacing_mm: (D, H, W) or as scanned; resample: whether unequal grids are mended by their headers; register: bring
    every scan onto the fixed one by its content; fixed: the modality whose grid the case takes (default: the first).
    align: "midline" turns and shifts that grid until the head's mid-sagittal plane is its middle column.
    mask: what is masked where no mask file is given; mask_from: the modality in which a brain is found.
    """

    spacing_mm: tuple[float, float, float] | None = None
    resample: bool = False
    register: RegistrationMethod | None = None
    fixed: str | None = None
    align: Align | None = None
    mask: Mask = "body"
    mask_from: str | None = None


@dataclass(frozen=True, eq=False)
class Common:
    """The grid that all scans of a case come to, the grids they have (canonical), and the transforms between them.

    fixed: the name and the file of the scan that stays.
    """

    grid: Grid
    grids: dict[str, Grid]
    fixed: tuple[str, str]
    resample: bool
    registered: dict[str, Registered]
    transforms: dict[str, Transform]

    def bring(self, name: str, volume: Volume) -> Volume:
        """A scan on the grid; raises BadInput where it has another grid and may not move."""
        return self._bring(volume, self.transforms.get(name), 1)

    def bring_labels(self, labels: Volume) -> Volume:
        """A mask or label map on the grid, moved with the scan whose grid it was drawn on."""
        moved = [name for name in self.transforms if same_grid(labels.grid, self.grids[name])]
        stays = same_grid(labels.grid, self.grids[self.fixed[0]]) or not moved
        return self._bring(labels, None if stays else self.transforms[moved[0]], 0)

    def seen(self) -> np.ndarray:
        """Where every scan that was registered has voxels: bool [D, H, W]."""
        seen = np.ones(self.grid.shape, bool)
        for name, transform in self.transforms.items():
            seen &= covered(self.grids[name], self.grid, transform)
        return seen

    def _bring(self, volume: Volume, transform: Transform | None, order: Literal[0, 1]) -> Volume:
        if transform is not None:
            fill = 0.0 if order == 0 else None
            return apply_transform(volume, self.grid, transform, order, fill)
        name, file = self.fixed
        theirs = self.grids[name]
        unequal = not same_grid(volume.grid, theirs)
        if unequal and not self.resample:
            raise BadInput(
                f"{volume.origin}: expected the grid of {file} ({theirs}), found {volume.grid}"
                f"{_shift(volume.grid, theirs)}. Pass --resample to bring it there by its header, or "
                "--register to bring it there by what it shows."
            )
        if same_grid(volume.grid, self.grid):
            return volume
        moved = resample(volume, self.grid, order=order)
        if unequal and np.ptp(moved.data) == 0 < np.ptp(volume.data):
            raise BadInput(
                f"{volume.origin}: expected it to overlap {file} in space, found nothing of it there. "
                "Pass --register rigid: their headers do not share a frame."
            )
        return moved


def find_common(case: str, scans: dict[str, Volume], bringing: Bringing) -> Common:
    """Choose the grid of a case and register its scans to it where that is asked for."""
    name = bringing.fixed or next(iter(scans))
    if name not in scans:
        raise BadInput(
            f"case {case}: expected the modality {name}, to which the others are brought, found {', '.join(scans)}. "
            "Name another one by --fixed, or leave the case out by a manifest."
        )
    fixed = scans[name]
    aligned = midline_grid(fixed) if bringing.align == "midline" else fixed.grid
    grid = with_spacing(aligned, bringing.spacing_mm) if bringing.spacing_mm is not None else aligned
    grids = {other: volume.grid for other, volume in scans.items()}
    common = Common(grid, grids, (name, fixed.origin), bringing.resample or bringing.register is not None, {}, {})
    if bringing.register is None:
        return common
    for other, volume in scans.items():
        if other != name:
            found = register(volume, fixed, bringing.register)
            moved = found.kept != "none"
            file = transform_name(case, other, found.kept) if moved else ""
            common.registered[other] = Registered(name, bringing.register, found.kept, found.before, found.after, file)
            if moved:
                common.transforms[other] = found.transform
    return common


def _shift(found: Grid, expected: Grid) -> str:
    """What to say of two grids that print alike."""
    if str(found) != str(expected):
        return ""
    apart = np.abs(found.affine - expected.affine)[:3, 3].max()
    return f" in another place or direction (first voxels {apart:.2f} mm apart)"
