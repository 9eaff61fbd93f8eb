"""An image on the grid of its truth: as it is, resampled by the headers, or moved back by the cohort's registration."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from voxlate.data.prepared import open_cohort
from voxlate.errors import BadInput
from voxlate.images.grid import Grid, Volume, resample, same_grid
from voxlate.images.register import Transform, apply_transform, simpleitk
from voxlate.images.transforms import read_transform


@dataclass(frozen=True)
class Move:
    """How images made from a case's scans come to the grid of a truth; transform: from the truth's points to theirs."""

    grid: Grid
    transform: Transform | None = None
    note: str = ""

    def keeps(self, grid: Grid) -> bool:
        """Whether the voxels of an image on `grid` are those of the truth."""
        return self.transform is None and same_grid(grid, self.grid)

    def move(self, volume: Volume, order: Literal[0, 1] = 1, fill: float | None = None) -> Volume:
        """The volume on the truth's grid, interpolated where it has another; see `resample`."""
        if self.keeps(volume.grid):
            return volume
        if self.transform is None:
            return resample(volume, self.grid, order, fill)
        return apply_transform(volume, self.grid, self.transform, order, fill)

    def covered(self, grid: Grid) -> NDArray[np.bool_] | None:
        """Which voxels of the truth lie in the field of view of an image on `grid`: bool [D, H, W]; None for all."""
        if self.keeps(grid):
            return None
        box = Volume(np.ones((1, *grid.shape), np.float32), grid.affine, "", "")
        found: NDArray[np.bool_] = self.move(box, order=0, fill=0.0).data[0] > 0
        return None if found.all() else found


def find_move(
    truth: Volume,
    image: Grid,
    made: Mapping[str, Any],
    cohort: Path | None,
    case: str,
    frame: str | None = None,
) -> Move:
    """How images on `image`'s frame come to the truth's grid.

    made: the provenance of the synthesis, whose "prepared" states whether scans were registered, and in whose frame the
    image lies (`frame`: the scan in whose frame another one does); cohort: the prepared cohort that keeps the
    transforms to the frame of its fixed scan. Raises BadInput where a scan was registered and no transform of it is
    found on another grid, or the truth's has no inverse.
    """
    stated = made.get("prepared", {})
    method = stated.get("register")
    frame = frame or stated.get("on_grid_of")
    apart = not same_grid(image, truth.grid)
    by_headers = Move(
        truth.grid,
        note="resampled linearly to the truth's grid by the headers" if apart else "",
    )
    if method is None:
        return by_headers
    to_truth = _transform(cohort, case, truth.modality)
    to_image = "" if frame is None else _transform(cohort, case, frame)
    if to_truth is None or to_image is None:
        if not apart:
            return Move(
                truth.grid,
                note="as the headers lie, without the registration that prepare made",
            )
        lost = truth.modality if to_truth is None else frame
        raise BadInput(
            f"{truth.origin}: expected the transform by which prepare registered {lost} ({method}), for the image lies on another grid ({image}), found none. Pass --prepared with the prepared cohort."
        )
    if to_truth == to_image:
        return by_headers
    note = "moved back to the truth's grid by prepare's registration, interpolated linearly"
    return Move(truth.grid, _between(to_truth, to_image, method), note)


def check_prepared(cohort: Path, made: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise BadInput where a folder is no prepared cohort, or its transforms could not be used for a case.

    made: the provenance of each case's synthesis, without which nobody knows in which scan's frame the image lies.
    """
    transforms = (cohort / "transforms").is_dir()
    if not transforms and not (cohort / "cohort.json").is_file():
        raise BadInput(f"--prepared: expected a prepared cohort, found none in {cohort}. Check the path.")
    bare = [case for case, stated in made.items() if stated.get("prepared", {}).get("register") is None]
    if transforms and bare:
        raise BadInput(
            f"--prepared: expected provenance of each image that says in which registered scan's frame it lies, found none of {bare[0]} ({len(bare)} of {len(made)} lack it). Leave the option out to go by the headers."
        )


def _transform(cohort: Path | None, case: str, modality: str) -> Path | Literal[""] | None:
    """The file that leads from the cohort's frame to a scan's; "" where the scan stayed, None where nobody knows."""
    if cohort is None:
        return None
    file = next((cohort / "transforms" / case).glob(f"{modality}.*"), None)
    return file or ("" if _was_left(cohort, case, modality) else None)


def _between(to_truth: Path | Literal[""], to_image: Path | Literal[""], method: str) -> Transform:
    """From the truth's points to the image's: back to the cohort's frame, and on to that of the image."""
    steps = [read_transform(to_image)] if to_image else []
    back = read_transform(to_truth) if to_truth else None
    try:
        steps += [back.GetInverse()] if back is not None else []
    except RuntimeError as error:
        raise BadInput(
            f"{to_truth}: expected a rigid or affine transform, which can be inverted to score on the truth's own grid, found a {method} one. Score prepared truths, or prepare with --register affine."
        ) from error
    return simpleitk().CompositeTransform(steps)  # the last one is applied first


def _was_left(cohort: Path, case: str, modality: str) -> bool:
    """Whether a prepared cohort says that a case's scan stayed where its header puts it (it was fixed, or no gain)."""
    if not (cohort / "cohort.json").is_file():
        return False
    return any(
        entry.case == case and (modality not in entry.registered or entry.registered[modality].kept == "none")
        for entry in open_cohort(cohort).cases
    )
