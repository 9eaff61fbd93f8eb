"""The picture of the demo."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from voxlate.base.array_types import AnyArray, Float32
from voxlate.base.files import HIGH, LOW
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import canonical
from voxlate.scans.images.pictures import Picture, montage, palette, shades

SHOWN_HU = (-200, 1200)
ZOOM = 3  # the last row enlarges a piece of skull so much
LARGEST_HU = 300  # upper end of the colour scale of spread and error


def picture_of(
    cohort: Path, folders: Sequence[Path], cases: Sequence[str], between: float, path: Path
) -> Path:
    """A row a head, at the slice with most tumour, and a last row with the back of the last head's skull, enlarged."""
    rows = [_row(cohort, folders, case) for case in cases]
    height, width = rows[-1][0].shape[:2]
    side, left = height // ZOOM, width // 6
    rows.append([image[:side, left : left + side] for image in rows[-1]])
    maps = ["90 % interval's half", "regression's error", "truth outside"]
    titles = [
        "T1",
        "regression",
        f"sharpness {between:g}",
        "one sample",
        "true CT",
        *(f"{title}, 0-{LARGEST_HU} HU" for title in maps),
    ]
    montage(rows, titles, path)
    return path


def _row(cohort: Path, synthesised: Sequence[Path], case: str) -> list[Picture]:
    """Source, predictions by sharpness, truth, how far it may lie from the regression, and does; cut to the head."""
    truth, folders = cohort / case, [folder / case for folder in synthesised]
    tumour = canonical(read_volume(truth / "lesion.nii.gz")).data[0] > 0
    level = int(np.argmax(tumour.sum((1, 2))))
    predictions = [_slice(folder / "ct.nii.gz", level) for folder in folders]
    true, given = (_slice(truth / f"{name}.nii.gz", level) for name in ("ct", "t1"))
    least, most = (_slice(folders[0] / f"ct{end}.nii.gz", level) for end in (LOW, HIGH))
    low, high = SHOWN_HU
    grey = [
        _colours(given, 0, float(given.max())),
        *(_colours(image, low, high) for image in (*predictions, true)),
    ]
    error = np.abs(predictions[0].clip(low, high) - true.clip(low, high))
    outside = np.maximum(least - true, 0) + np.maximum(true - most, 0)
    half = (most - least) / 2
    hot = [_colours(values, 0, LARGEST_HU, "inferno") for values in (half, error, outside)]
    box = tuple(slice(max(at.min() - 4, 0), at.max() + 5) for at in np.nonzero(true > low))
    return [image[box] for image in (*grey, *hot)]


def _slice(path: Path, level: int) -> Float32:
    return canonical(read_volume(path)).data[0, level]


def _colours(image: AnyArray, low: float, high: float, name: str = "gray") -> Picture:
    """Values [H, W] as an RGB picture [H, W, 3] through a window and a colour map."""
    return palette(name)[shades(image, low, high)]
