"""What `prepare` would take, read and checked as it does, with nothing written: which file becomes what."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from voxlate.data.align import Preparation, find_common_grid
from voxlate.data.case import CaseHeader
from voxlate.data.find import CaseFiles
from voxlate.errors import BadInput
from voxlate.images.grid import Grid, canonical
from voxlate.images.volume import read_volume

COARSER = 1.2  # times: a smaller difference of voxels is not worth a word


@dataclass(frozen=True)
class Seen:
    """One file or DICOM series of a case: what it becomes, on which grid (as "512×512×80, …"), and its unit."""

    case: str
    name: str
    path: str
    grid: str
    unit: str


@dataclass(frozen=True)
class Checked:
    """What was seen of a cohort, and a sentence on each case that `prepare` would refuse."""

    seen: tuple[Seen, ...]
    problems: tuple[str, ...]


def check_cases(
    cases: Sequence[CaseFiles], preparation: Preparation, progress: Callable[[int, int, str], None] | None = None
) -> Checked:
    """Read every scan, mask and label map, and compare units and grids, as `prepare` does before it registers."""
    seen, problems, units = list[Seen](), list[str](), dict[str, tuple[str, str]]()
    for done, one in enumerate(cases, start=1):
        try:
            seen += _seen(one, preparation, units)
        except BadInput as error:
            problems.append(str(error))
        if progress is not None:
            progress(done, len(cases), one.case)
    return Checked(tuple(seen), tuple(problems))


def _seen(one: CaseFiles, preparation: Preparation, units: dict[str, tuple[str, str]]) -> list[Seen]:
    """The files of one case; raises BadInput for the first that cannot be taken. units: of the cases before."""
    scans = {name: read_volume(path, name) for name, path in one.files.items()}
    seen = [Seen(one.case, name, str(one.files[name]), str(scan.grid), scan.unit) for name, scan in scans.items()]
    for name, scan in scans.items():
        check_unit(name, scan.unit, one.case, units)
    in_ras = {name: canonical(scan) for name, scan in scans.items()}
    may_resample = preparation.resample or preparation.register is not None
    common = find_common_grid(one.case, in_ras, replace(preparation, register=None, resample=may_resample))
    for scan in in_ras.values():
        common.aligned(scan.modality, scan)
    drawn = {"mask": one.mask, **one.labels} if one.mask is not None else {**one.labels}
    for name, path in drawn.items():
        labels = read_volume(path, name)
        common.aligned_labels(canonical(labels))
        seen.append(Seen(one.case, name, str(path), str(labels.grid), ""))
    return seen


def check_unit(name: str, unit: str, case: str, first: dict[str, tuple[str, str]]) -> None:
    """Raise BadInput where a modality has another unit than in the case before; first: (unit, case) by modality."""
    known, other = first.setdefault(name, (unit, case))
    if unit != known:
        raise BadInput(
            f"{name}: expected one unit in all cases, found {known} in {other} and {unit} in {case}. "
            "Convert one of them, or leave those cases out by a manifest."
        )


def finest(cases: Sequence[CaseFiles], names: Sequence[str]) -> str | None:
    """The modality on whose grid least is lost: the smallest distance of slices, then the smallest voxels.

    Of these names, in the first, middle and last case; the first of equal ones. None where there are no names.
    """
    if len(names) < 2:
        return next(iter(names), None)
    some = {one.case: one for one in (cases[0], cases[len(cases) // 2], cases[-1])}.values()
    sizes = {name: [read_volume(one.files[name], name).grid.spacing_mm for one in some] for name in names}

    def loss(name: str) -> tuple[float, float]:
        widest = max(max(spacing) for spacing in sizes[name])
        voxel = max(spacing[0] * spacing[1] * spacing[2] for spacing in sizes[name])
        return round(widest, 2), round(voxel, 2)

    return min(names, key=loss)


def lost_by_resampling(headers: Sequence[CaseHeader], preparation: Preparation) -> list[str]:
    """A sentence on each modality that was scanned with finer voxels than its cases' grids have, where nobody asked."""
    if preparation.changes_voxels or not (preparation.resample or preparation.register):
        return []
    lost = dict[str, list[tuple[str, Grid, Grid]]]()
    for header in headers:
        grid = Grid(header.shape, np.array(header.affine))
        for name, origin in header.origins.items():
            if (_along_the_body(grid) > COARSER * _along_the_body(origin.grid)).any():
                lost.setdefault(name, []).append((header.case, origin.grid, grid))
    sentences = []
    for name, found in lost.items():
        case, before, after = found[0]
        sentences.append(
            f"{name} LOSES DETAIL on the case's grid in {len(found)} of {len(headers)} cases: in {case} from {before} "
            f"to {after}. Name another scan by --fixed, or voxels by --spacing."
        )
    return sentences


def _along_the_body(grid: Grid) -> NDArray[np.float64]:
    """Distance of voxels to the left, the front and the top, whichever axes of the array lie there."""
    steps = np.abs(grid.affine[:3, :3])
    spacing = np.zeros(3)
    spacing[steps.argmax(axis=0)] = np.linalg.norm(steps, axis=0)
    return spacing
