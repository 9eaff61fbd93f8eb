"""What the headers of prepared cases show without their voxels: synthesised files, guesses, resampling that loses detail, exchanged axes."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from voxlate.base.array_types import Float64
from voxlate.base.errors import BadInput
from voxlate.base.messages import Message, message
from voxlate.scans.cases.align import Preparation
from voxlate.scans.cases.case_header import CaseHeader
from voxlate.scans.cohorts.case_files import CaseFiles
from voxlate.scans.formats.dicom import entries_in, folder_and_key, headers_of
from voxlate.scans.formats.dicom_headers import text_of
from voxlate.scans.formats.io import is_synthetic
from voxlate.scans.images.grid import Grid, share_inside

COARSER = 1.2  # times: a smaller difference of voxels is not reported
LEAST_KEPT = 0.5  # of a scan's box inside the case's grid: less is reported
SYNTHESISED = "SYNTHETIC "  # with which the descriptions of exported DICOM series begin
Resampled = tuple[str, Grid, Mapping[str, Grid]]  # a case, its common grid, the grids of its scans


def check_origins(headers: Sequence[CaseHeader]) -> Iterator[Message]:
    """Messages on what was assumed of scans, and on registrations that failed."""
    for header in headers:
        for name, origin in header.origins.items():
            yield from check_guesses(name, origin.guesses, header.case)
        for name, scan in header.registered.items():
            if scan.kept != scan.asked:
                gain = f"{scan.before.mutual_information:.4f} before, {scan.after.mutual_information:.4f} after"
                left = "resampled by its header" if scan.kept == "none" else f"kept {scan.kept}"
                yield message(
                    "not-registered",
                    f"{name}: {scan.asked} registration did not make it more similar to {scan.to}, {left} (mutual information {gain}).",
                    case=header.case,
                )


def check_guesses(name: str, guesses: Sequence[Message], case: str = "") -> Iterator[Message]:
    """The messages on guesses about a scan, with its name."""
    return (replace(guess, text=f"{name}: {guess.text}", case=case) for guess in guesses)


def refuse_synthetic(cases: Iterable[CaseFiles], names: Collection[str] | None = None) -> None:
    """Raise BadInput where a scan of a cohort is an image that voxlate synthesised; names: of scans, by default all."""
    for case in cases:
        for name, path in case.files.items():
            if (names is None or name in names) and _is_synthesised(path):
                raise BadInput(
                    f"{path}: expected a scan of the patient, found an image that voxlate synthesised, which is no truth and no source to learn from. Take the scan, or leave the case out (--exclude)."
                )


def _is_synthesised(path: Path) -> bool:
    """Whether the file, or the description of a DICOM series, says so."""
    place, key = folder_and_key(path)
    if place.is_dir():
        with suppress(BadInput, IndexError):  # which reading the scan says
            ((image, header), *_) = headers_of(path if key else entries_in(place)[0]).items()
            return text_of(header, "SeriesDescription", image).startswith(SYNTHESISED)
        return False
    return is_synthetic(path)


def check_widths(headers: Sequence[CaseHeader]) -> list[Message]:
    """A message where most masks are wider than deep, as no head is: rows and columns are likely exchanged."""
    sides = [np.ptp(header.mask_box, 1) * header.spacing_mm for header in headers]
    wide = sum(bool(width > depth) for _, depth, width in sides)
    if 2 * wide <= len(headers):
        return []
    return [
        message(
            "wide-heads",
            f"{wide} of {len(headers)} heads are wider than deep: rows and columns are likely exchanged.",
            heads=wide,
        )
    ]


def check_unit(name: str, unit: str, case: str, first: dict[str, tuple[str, str]]) -> None:
    """Raise BadInput where a modality has another unit than in the case before; first: (unit, case) by modality."""
    known, other = first.setdefault(name, (unit, case))
    if unit != known:
        raise BadInput(
            f"{name}: expected one unit in all cases, found {known} in {other} and {unit} in {case}. Convert one of them, or leave those cases out by a manifest."
        )


def check_resampling(cases: Sequence[Resampled], preparation: Preparation) -> Iterator[Message]:
    """A message on each modality that resampling cuts or makes coarser, unless the user chose the voxels."""
    if preparation.changes_voxels or not (preparation.resample or preparation.register):
        return
    cut = defaultdict(list)
    lost = defaultdict(list)
    for case, grid, origins in cases:
        for name, origin in origins.items():
            kept = share_inside(origin, grid) if preparation.register is None else 1.0
            if kept < LEAST_KEPT:
                cut[name].append((case, kept))
            if (_along_the_body(grid) > COARSER * _along_the_body(origin)).any():
                lost[name].append((case, origin, grid))
    for name, found in cut.items():
        case, kept = found[0]
        yield message(
            "is-cut",
            f"{name} IS CUT to the case's grid in {len(found)} of {len(cases)} cases: in {case} {kept:.0%} of its volume lies on it.",
            cases=len(found),
            kept=kept,
        )
    for name, coarser in lost.items():
        case, before, after = coarser[0]
        yield message(
            "loses-detail",
            f"{name} LOSES DETAIL on the case's grid in {len(coarser)} of {len(cases)} cases: in {case} from {before} to {after}.",
            cases=len(coarser),
        )


def _along_the_body(grid: Grid) -> Float64:
    """Distance of voxels to the left, the front and the top, whichever axes of the array have these directions."""
    steps = np.abs(grid.affine[:3, :3])
    spacing = np.zeros(3)
    spacing[steps.argmax(0)] = np.linalg.norm(steps, axis=0)
    return spacing
