"""One case on its way: read, brought to one grid in canonical orientation, masked, measured, written."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from voxlate.data.layout import CaseFiles
from voxlate.data.prepared import LABEL, MASK, VERSION, CaseHeader, Origin, case_path, compact, read_header, write_case
from voxlate.data.scale import intensity_statistics
from voxlate.errors import BadInput
from voxlate.images.grid import Grid, canonical, resample, same_grid, with_spacing
from voxlate.images.mask import foreground
from voxlate.images.volume import Volume, read_volume

READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Bringing:
    """How a case comes to one grid: spacing (D, H, W) in mm or as scanned, and whether unequal grids are mended."""

    spacing_mm: tuple[float, float, float] | None = None
    resample: bool = False


def prepare_case(files: CaseFiles, out: Path, bringing: Bringing) -> None:
    """Prepare one case, unless its file is there and was made from the same inputs in the same way."""
    path = case_path(out, files.case)
    inputs = _digest_of_inputs(files, bringing)
    if path.exists() and read_header(path).inputs == inputs:
        return
    scans = {name: read_volume(place, name) for name, place in files.files.items()}
    origins = {
        name: Origin(files.files[name].name, scan.grid.shape, scan.affine.tolist()) for name, scan in scans.items()
    }
    volumes = {name: canonical(scan) for name, scan in scans.items()}
    del scans
    first = next(iter(volumes.values()))
    grid = with_spacing(first.grid, bringing.spacing_mm) if bringing.spacing_mm is not None else first.grid
    volumes = {name: _brought(volume, first, grid, bringing) for name, volume in volumes.items()}
    own = {name: foreground(volume) for name, volume in volumes.items()}
    mask = _mask(files, own, first, grid, bringing)
    stored = {name: compact(volume.data[0]) for name, volume in volumes.items()}
    header = CaseHeader(
        case=files.case,
        patient=files.patient,
        shape=grid.shape,
        spacing_mm=grid.spacing_mm,
        affine=grid.affine.tolist(),
        units={name: volume.unit for name, volume in volumes.items()},
        origins=origins,
        labels=list(files.labels),
        # inside the scan's own foreground: at synthesis neither the target nor a mask file is there to ask
        statistics={name: intensity_statistics(values, own[name]) for name, values in stored.items()},
        mask_from=files.mask.name if files.mask is not None else "foreground of " + ", ".join(volumes),
        mask_area=[int(area) for area in mask.sum(axis=(1, 2))],
        mask_box=_box(mask),
        mask_ml=float(mask.sum() * np.prod(grid.spacing_mm) / 1000),
        inputs=inputs,
        voxels={name: _digest_of_voxels(values) for name, values in stored.items()},
    )
    stored[MASK] = mask.astype(np.uint8)
    for name, place in files.labels.items():
        stored[LABEL + name] = compact(
            _brought(canonical(read_volume(place, name)), first, grid, bringing, order=0).data[0]
        )
    write_case(path, stored, header)


def _brought(volume: Volume, first: Volume, grid: Grid, bringing: Bringing, order: Literal[0, 1] = 1) -> Volume:
    """The volume on the case's grid; raises BadInput where it had another than the first volume's, and may not move."""
    if not same_grid(volume.grid, first.grid) and not bringing.resample:
        raise BadInput(
            f"{volume.origin}: expected the grid of {first.origin} ({first.grid}), found {volume.grid}"
            f"{_shift(volume.grid, first.grid)}. Pass --resample to bring it there."
        )
    if same_grid(volume.grid, grid):
        return volume
    moved = resample(volume, grid, order=order)
    if not same_grid(volume.grid, first.grid) and np.ptp(moved.data) == 0 < np.ptp(volume.data):
        raise BadInput(
            f"{volume.origin}: expected it to overlap {first.origin} in space, found nothing of it there. "
            "Register the two first: their headers do not share a frame."
        )
    return moved


def _shift(found: Grid, expected: Grid) -> str:
    """What to say of two grids that print alike."""
    if str(found) != str(expected):
        return ""
    apart = np.abs(found.affine - expected.affine)[:3, 3].max()
    return f" in another place or direction (first voxels {apart:.2f} mm apart)"


def _mask(files: CaseFiles, own: dict[str, np.ndarray], first: Volume, grid: Grid, bringing: Bringing) -> np.ndarray:
    """The given mask where there is one, else what is foreground in any modality; bool [D, H, W]."""
    if files.mask is None:
        inside: np.ndarray = np.any(list(own.values()), axis=0)
        return inside
    given = _brought(canonical(read_volume(files.mask, "mask")), first, grid, bringing, order=0)
    mask: np.ndarray = given.data[0] > 0
    if not mask.any():
        raise BadInput(f"{files.mask}: expected a mask with voxels above 0, found none. Mend or remove the file.")
    return mask


def _box(mask: np.ndarray) -> list[tuple[int, int]]:
    """First and last + 1 of the mask along D, H and W; the whole volume where the mask is empty."""
    if not mask.any():
        return [(0, length) for length in mask.shape]
    lines = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return [(int(line[0]), int(line[-1]) + 1) for line in lines]


def _digest_of_inputs(files: CaseFiles, bringing: Bringing) -> str:
    digest = hashlib.sha256(repr((VERSION, files.case, files.patient, bringing)).encode())
    paths = [*files.files.items(), *files.labels.items(), *([("mask", files.mask)] if files.mask else [])]
    for name, path in paths:
        digest.update(name.encode())
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            _add_file(digest, file)
    return digest.hexdigest()


def _add_file(digest: "hashlib._Hash", path: Path) -> None:
    if not path.is_file():
        return
    with open(path, "rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)


def _digest_of_voxels(values: np.ndarray) -> str:
    return hashlib.sha256(repr((values.shape, values.dtype.str)).encode() + values.tobytes()).hexdigest()
