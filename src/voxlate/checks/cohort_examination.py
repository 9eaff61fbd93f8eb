"""The examination of a cohort while it is prepared: numbers of each case, and messages on all of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from voxlate.base.array_types import AnyArray
from voxlate.base.files import PHANTOMS
from voxlate.base.messages import Message
from voxlate.checks.alignment import check_alignment
from voxlate.checks.cohort_outliers import check_outliers
from voxlate.checks.copies import check_copies, signatures
from voxlate.checks.head_checks import body_numbers
from voxlate.checks.header_checks import check_origins, check_widths
from voxlate.checks.quality_checks import check_stacks, mask_numbers, slice_numbers
from voxlate.scans.cases.case import PreparedCase, map_arrays
from voxlate.scans.cases.case_header import CaseHeader
from voxlate.scans.cases.resampling_loss import check_resampling
from voxlate.scans.images.grid import Volume, canonical_view
from voxlate.scans.images.units import TISSUE_MAPS
from voxlate.scans.prepare import Examination
from voxlate.scans.survey import Inputs


def _measure(case: PreparedCase, scans: Mapping[str, Volume], mask: Volume | None) -> CaseHeader:
    """The header of a case with the signatures of its scans, and the numbers of their slices, bodies and mask."""
    units = case.header.units.items()
    ct = next((case.volume(name) for name, unit in units if unit == "HU"), None)
    stacks = {
        name: slice_numbers(canonical_view(scan)) | body_numbers(case.volume(name), ct)
        for name, scan in scans.items()
        if name not in TISSUE_MAPS
    }
    stacks["mask"] = mask_numbers(mask, case.mask(), case.outlines.values()) if mask else {}
    return replace(case.header, signatures=signatures(case), stacks=stacks)


def _judge(headers: Sequence[CaseHeader], inputs: Inputs, cases: Path) -> Iterator[Message]:
    """Messages on all that is unusual in a prepared cohort."""
    found = inputs.found
    preparation = inputs.preparation
    masks = {case.case: case.mask for case in found.cases if case.mask}
    grids = [
        (header.case, header.grid, {name: one.grid for name, one in header.origins.items()})
        for header in headers
    ]
    if found.heads:
        yield from check_widths(headers)
    is_drawn = (inputs.root / PHANTOMS).is_file()
    yield from check_copies(headers, inputs.splits, cases, masks, is_drawn)
    yield from check_origins(headers)
    yield from check_stacks(headers)
    yield from check_outliers(headers, partial(_arrays, cases))
    yield from check_resampling(grids, preparation)
    yield from check_alignment(headers, preparation)


def _arrays(cases: Path, case: str) -> Mapping[str, AnyArray]:
    """The arrays of a prepared case, mapped from its file."""
    return map_arrays(cases / f"{case}.safetensors")


EXAMINATION = Examination(_measure, _judge)
