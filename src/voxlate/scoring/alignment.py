"""An image on the grid of its truth: as it is, resampled by the headers, or moved back by the cohort's registration."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlate.data.prepared import open_cohort
from voxlate.errors import BadInput
from voxlate.images.grid import Grid, resample, same_grid
from voxlate.images.register import Transform, apply_transform, simpleitk
from voxlate.images.volume import Volume


@dataclass(frozen=True)
class Move:
    """How images made from a case's scans come to the grid of a truth; transform: from the truth's points to theirs."""

    grid: Grid
    transform: Transform | None = None
    note: str = ""

    def move(self, volume: Volume) -> Volume:
        """The volume on the truth's grid, linearly interpolated where it has another."""
        if self.transform is not None:
            return apply_transform(volume, self.grid, self.transform)
        return volume if same_grid(volume.grid, self.grid) else resample(volume, self.grid)

    def covered(self, grid: Grid) -> NDArray[np.bool_] | None:
        """Which voxels of the truth lie in the field of view of an image on `grid`: bool [D, H, W]; None for all."""
        if self.transform is None and same_grid(grid, self.grid):
            return None
        box = Volume(np.ones((1, *grid.shape), np.float32), grid.affine, "", "")
        if self.transform is not None:
            return apply_transform(box, self.grid, self.transform, order=0, fill=0.0).data[0] > 0
        return resample(box, self.grid, order=0, fill=0.0).data[0] > 0


def find_move(truth: Volume, image: Grid, made: Mapping[str, Any], cohort: Path | None, case: str) -> Move:
    """How images on `image`'s frame come to the truth's grid.

    made: the provenance of the synthesis, whose "prepared" states whether scans were registered; cohort: the prepared
    cohort that keeps the transforms. Raises BadInput where a registered truth has another grid and no transform is
    found, or one that has no inverse.
    """
    method = made.get("prepared", {}).get("register")
    place = None if cohort is None else next((cohort / "transforms" / case).glob(f"{truth.modality}.*"), None)
    if method is None or (place is None and _was_left(cohort, case, truth.modality)):
        note = "" if same_grid(image, truth.grid) else "resampled linearly to the truth's grid by the headers"
        return Move(truth.grid, note=note)
    if place is None:
        if same_grid(image, truth.grid):
            return Move(truth.grid, note="as the headers lie, without the registration that prepare made")
        raise BadInput(
            f"{truth.origin}: expected the transform by which prepare registered it ({method}), for the image lies on "
            f"another grid ({image}), found none. Pass --prepared with the prepared cohort."
        )
    itk = simpleitk()
    try:
        inverse = itk.ReadTransform(str(place)).GetInverse()
    except RuntimeError as error:
        raise BadInput(
            f"{place}: expected a rigid or affine transform, which can be inverted to score on the truth's own grid, "
            f"found a {method} one. Score prepared truths, or prepare with --register affine."
        ) from error
    return Move(truth.grid, inverse, "moved back to the truth's grid by prepare's registration, interpolated linearly")


def _was_left(cohort: Path | None, case: str, modality: str) -> bool:
    """Whether a prepared cohort says that a case's scan stayed where its header puts it (it was fixed, or no gain)."""
    if cohort is None or not (cohort / "cohort.json").is_file():
        return False
    for entry in open_cohort(cohort).cases:
        if entry.case == case:
            found = entry.registered.get(modality)
            return found is None or found.kept == "none"
    return False
