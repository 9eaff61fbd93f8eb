"""The files that `prepare` would read, checked as it does, with nothing written."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from voxlate.cases.align import Preparation, find_common_grid
from voxlate.cases.case_header import CaseHeader
from voxlate.cohorts.case_files import CaseFiles
from voxlate.formats.io import read_volume
from voxlate.images.grid import Grid, Volume, canonical, share_inside
from voxlate.system.errors import BadInput
from voxlate.system.messages import Message, message

COARSER = 1.2  # times: a smaller difference of voxels is not reported
LEAST_KEPT = 0.5  # of a scan's box inside the case's grid: less is reported
UNREAD = "cannot be read"
Resampled = tuple[str, Grid, dict[str, Grid]]  # a case, its common grid, and the grids of its scans


@dataclass(frozen=True)
class CheckedFile:
    """One file or DICOM series of a case: its modality or label map, its grid ("512×512×80, …"), and its unit."""

    case: str
    name: str
    path: str
    grid: str
    unit: str

    @property
    def is_read(self) -> bool:
        """Whether the file could be read."""
        return self.grid != UNREAD


@dataclass(frozen=True)
class Checked:
    """The files of a cohort, a sentence on each case that `prepare` would refuse, and messages on what resampling loses."""

    files: tuple[CheckedFile, ...]
    problems: tuple[str, ...]
    lost: tuple[Message, ...] = ()


def check_cases(
    cases: Sequence[CaseFiles],
    preparation: Preparation,
    progress: Callable[[int, int, str], None] | None = None,
) -> Checked:
    """Read every scan, mask and label map, and compare units and grids, as `prepare` does before it registers."""
    files = list[CheckedFile]()
    problems = list[str]()
    moved = list[Resampled]()
    units = dict[str, tuple[str, str]]()
    for done, one in enumerate(cases, start=1):
        volumes = dict[str, Volume]()
        for name, path in one.paths.items():
            try:
                volumes[name] = read_volume(path, name)
                files.append(_checked_file(one, name, volumes[name]))
                if name in one.files:
                    check_unit(name, volumes[name].unit, one.case, units)
            except BadInput as error:
                problems.append(str(error))
                if name not in volumes:
                    files.append(CheckedFile(one.case, name, str(path), UNREAD, ""))
        try:
            moved += _moved(one, volumes, preparation) if volumes.keys() == one.paths.keys() else []
        except BadInput as error:
            problems.append(str(error))
        if progress is not None:
            progress(done, len(cases), one.case)
    return Checked(tuple(files), tuple(problems), tuple(_lost(moved, preparation)))


def _checked_file(case: CaseFiles, name: str, volume: Volume) -> CheckedFile:
    unit = volume.unit if name in case.files else ""
    return CheckedFile(case.case, name, str(case.paths[name]), str(volume.grid), unit)


def _moved(
    case: CaseFiles, volumes: Mapping[str, Volume], preparation: Preparation
) -> list[Resampled]:
    """Resample a case's scans, mask and labels to one grid by their headers; raises BadInput where they do not fit."""
    in_ras = {name: canonical(volume) for name, volume in volumes.items()}
    scans = {name: in_ras[name] for name in case.files}
    may_resample = preparation.resample or preparation.register is not None
    common = find_common_grid(
        case.case,
        scans,
        replace(preparation, register=None, resample=may_resample),
    )
    for name, volume in in_ras.items():
        if name not in scans:
            common.align_labels(volume)
        elif preparation.register is None:
            common.align(name, volume)
    return [(case.case, common.grid, {name: volumes[name].grid for name in scans})]


def check_unit(name: str, unit: str, case: str, first: dict[str, tuple[str, str]]) -> None:
    """Raise BadInput where a modality has another unit than in the case before; first: (unit, case) by modality."""
    known, other = first.setdefault(name, (unit, case))
    if unit != known:
        raise BadInput(
            f"{name}: expected one unit in all cases, found {known} in {other} and {unit} in {case}. Convert one of them, or leave those cases out by a manifest."
        )


def finest(cases: Sequence[CaseFiles], names: Sequence[str]) -> str | None:
    """The modality on whose grid resampling loses least: the smallest distance of slices, then the smallest voxels.

    Only these names are compared, in the first, middle and last case. None where there are no names.
    """
    if len(names) < 2:
        return next(iter(names), None)
    compared = (cases[0], cases[len(cases) // 2], cases[-1])
    some = {case.case: case for case in compared}.values()
    sizes = {
        name: [read_volume(one.files[name], name).grid.spacing_mm for one in some] for name in names
    }

    def loss(name: str) -> tuple[float, float]:
        widest = max(max(spacing) for spacing in sizes[name])
        voxel = max(spacing[0] * spacing[1] * spacing[2] for spacing in sizes[name])
        return round(widest, 2), round(voxel, 2)

    return min(names, key=loss)


def check_resampling(headers: Sequence[CaseHeader], preparation: Preparation) -> list[Message]:
    """A message on each modality with finer voxels than its cases' grids, unless the user chose the voxels."""
    moved = list[Resampled]()
    for header in headers:
        origins = {name: origin.grid for name, origin in header.origins.items()}
        moved.append((header.case, header.grid, origins))
    return _lost(moved, preparation)


def _lost(cases: Sequence[Resampled], preparation: Preparation) -> list[Message]:
    if preparation.changes_voxels or not (preparation.resample or preparation.register):
        return []
    lost = dict[str, list[tuple[str, Grid, Grid]]]()
    for case, grid, origins in cases:
        for name, origin in origins.items():
            if (_along_the_body(grid) > COARSER * _along_the_body(origin)).any():
                lost.setdefault(name, []).append((case, origin, grid))
    messages = _cut(cases, preparation)
    for name, found in lost.items():
        case, before, after = found[0]
        text = f"{name} LOSES DETAIL on the case's grid in {len(found)} of {len(cases)} cases: in {case} from {before} to {after}."
        messages.append(message("loses-detail", text, cases=len(found)))
    return messages


def _cut(cases: Sequence[Resampled], preparation: Preparation) -> list[Message]:
    """A message on each modality of which most is outside the cases' grids, by its headers."""
    cut = dict[str, list[tuple[str, float]]]()
    for case, grid, origins in cases if preparation.register is None else ():
        for name, origin in origins.items():
            kept = share_inside(origin, grid)
            if kept < LEAST_KEPT:
                cut.setdefault(name, []).append((case, kept))
    messages = list[Message]()
    for name, found in cut.items():
        text = f"{name} IS CUT to the case's grid in {len(found)} of {len(cases)} cases: in {found[0][0]} {found[0][1]:.0%} of its volume lies on it."
        messages.append(message("is-cut", text, cases=len(found), kept=found[0][1]))
    return messages


def _along_the_body(grid: Grid) -> NDArray[np.float64]:
    """Distance of voxels to the left, the front and the top, whichever axes of the array have these directions."""
    steps = np.abs(grid.affine[:3, :3])
    spacing = np.zeros(3)
    spacing[steps.argmax(axis=0)] = np.linalg.norm(steps, axis=0)
    return spacing
