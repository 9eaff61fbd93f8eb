"""Alignment of an image with its truth: on the same grid, resampled by the headers, or by the cohort's registration."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from voxlate.base.array_types import Bool
from voxlate.base.errors import BadInput
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.images.grid import Grid, Volume, resample, same_grid
from voxlate.scans.images.register import Transform, apply_transform, itk, read_transform


@dataclass(frozen=True)
class Alignment:
    """The mapping of a case's synthesised images to the grid of a truth; transform: from the truth's points to theirs."""

    grid: Grid
    transform: Transform | None = None
    note: str = ""

    def keeps(self, grid: Grid) -> bool:
        """Whether an image on `grid` has the voxels of the truth."""
        return self.transform is None and same_grid(grid, self.grid)

    def apply(self, volume: Volume, order: Literal[0, 1] = 1, fill: float | None = None) -> Volume:
        """The volume on the truth's grid, interpolated if it has another grid (see `resample`)."""
        if self.keeps(volume.grid):
            return volume
        if self.transform is None:
            return resample(volume, self.grid, order, fill)
        return apply_transform(volume, self.grid, self.transform, order, fill)

    def coverage(self, grid: Grid) -> Bool | None:
        """The truth's voxels in the field of view of an image on `grid`: bool [D, H, W]; None stands for all."""
        if self.keeps(grid):
            return None
        box = Volume(np.ones((1, *grid.shape), np.float32), grid.affine, "", "")
        covered: Bool = self.apply(box, order=0, fill=0.0).data[0] > 0
        return None if covered.all() else covered


def find_alignment(
    truth: Volume,
    image: Grid,
    provenance: Mapping[str, Any],
    cohort: Path | None,
    case: str,
    frame: str | None,
) -> Alignment:
    """The alignment of images on the grid `image` with the truth.

    provenance: that of the synthesis, whose "prepared" states whether scans were registered, and the frame of the image
    (`frame`: that of another scan); cohort: the prepared cohort with the transforms to the frame of its fixed scan.
    Raises BadInput if the transform of a registered scan on another grid is absent, or if the truth's transform cannot
    be inverted.
    """
    prepared = provenance.get("prepared", {})
    method = prepared.get("register")
    frame = frame or prepared.get("on_grid_of")
    apart = not same_grid(image, truth.grid)
    by_headers = Alignment(
        truth.grid,
        note="resampled linearly to the truth's grid by the headers" if apart else "",
    )
    if method is None:
        return by_headers
    to_truth = _transform(cohort, case, truth.modality)
    to_image = "" if frame is None else _transform(cohort, case, frame)
    if to_truth is None or to_image is None:
        if not apart:
            return Alignment(
                truth.grid,
                note="aligned by the headers, without the registration of prepare",
            )
        lost = truth.modality if to_truth is None else frame
        raise BadInput(
            f"{truth.origin}: expected the transform by which prepare registered {lost} ({method}), because the image is on another grid ({image}), found none. Pass --prepared with the prepared cohort."
        )
    if to_truth == to_image:
        return by_headers
    note = "moved back to the truth's grid by the registration of prepare, interpolated linearly"
    return Alignment(truth.grid, _between(to_truth, to_image, method), note)


def check_prepared(cohort: Path) -> None:
    """Raise BadInput if a folder is no prepared cohort."""
    if not (cohort / "transforms").is_dir() and not (cohort / "cohort.json").is_file():
        raise BadInput(
            f"--prepared: expected a prepared cohort, found none in {cohort}. Check the path."
        )


def _transform(cohort: Path | None, case: str, modality: str) -> Path | Literal[""] | None:
    """The transform file from the cohort's frame to a scan's; None if it is unknown.

    "" if the scan was not moved, because it is fixed or nothing was gained.
    """
    if cohort is None:
        return None
    file = next((cohort / "transforms" / case).glob(f"{modality}.*"), None)
    if file is not None or not (cohort / "cohort.json").is_file():
        return file
    registered = [entry.registered for entry in open_cohort(cohort).cases if entry.case == case]
    not_moved = any(modality not in scans or scans[modality].kept == "none" for scans in registered)
    return "" if not_moved else None


def _between(to_truth: Path | Literal[""], to_image: Path | Literal[""], method: str) -> Transform:
    """The transform from the truth's points to the image's, through the cohort's frame."""
    steps = [read_transform(to_image)] if to_image else []
    back = read_transform(to_truth) if to_truth else None
    try:
        steps += [back.GetInverse()] if back is not None else []
    except RuntimeError as error:
        raise BadInput(
            f"{to_truth}: expected a rigid or affine transform, which can be inverted to score on the truth's own grid, found a {method} one. Score prepared truths, or prepare with --register affine."
        ) from error
    return itk.CompositeTransform(steps)  # the last one is applied first
