"""Scans that several patients of a cohort share by mistake: the same voxels, or copies that were changed."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from voxlate.base.errors import first_of
from voxlate.base.groups import grouped
from voxlate.base.messages import Message
from voxlate.checks.check_table import Numbers, ask, first
from voxlate.checks.cohort_outliers import comparable
from voxlate.checks.same_scan import (
    LEAST,
    LEAST_FLAT,
    Field,
    as_text,
    field_of,
    from_text,
    likeness,
    signature_of,
    similar,
)
from voxlate.scans.cases.case import MASK, PreparedCase, open_case
from voxlate.scans.cases.case_header import CaseHeader
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.units import MAY_BE_ZERO

MOST_VERIFIED = 500  # pairs of similar signatures whose voxels are compared, the most similar first
KEPT_FIELDS = 64
SEEN = 0.87  # correlation of signatures where no voxels are there to compare: other patients reached 0.84, where brains lie in one space
LARGEST = 1 << 26


class _Scan(NamedTuple):
    """A scan of a case."""

    header: CaseHeader
    name: str

    def __str__(self) -> str:
        """The case and the modality."""
        return f"{self.header.case}/{self.name}"

    @property
    def voxels(self) -> str:
        """The digest of its voxels."""
        return self.header.voxels[self.name]


def signatures(case: PreparedCase) -> dict[str, str]:
    """The signatures (see checks/same_scan.py) of a case's scans, as text; those of blank scans are empty."""
    return {name: as_text(signature_of(_field(case, name))) for name in comparable(case.header)}


def is_copy(case: PreparedCase, names: Collection[str], known: Iterable[str]) -> bool:
    """Whether the signature of a scan with one of these names is almost one of those that are known.

    Scans of more than LARGEST voxels are not compared, because synthesis has little memory left beside them.
    """
    signatures = [from_text(text) for text in known]
    if not signatures or math.prod(case.header.shape) > LARGEST:
        return False
    for name in {*names} & {*comparable(case.header)}:
        own = signature_of(_field(case, name))
        others = np.array([other for other in signatures if len(other) == len(own)])
        if others.size and similar(own[None], others, SEEN):
            return True
    return False


def _field(case: PreparedCase, name: str) -> Field:
    """The field of a scan inside its mask, or inside its foreground where the case has no mask."""
    inside = case.mask([name]) if MASK in case.arrays else foreground(case.volume(name))
    return field_of(case.arrays[name], inside, case.header.spacing_mm)


def check_copies(
    headers: Sequence[CaseHeader],
    splits: Mapping[str, str],
    cases: Path,
    masks: Mapping[str, Path],
    drawn: bool,
) -> Iterator[Message]:
    """Messages on scans and masks with the same voxels, and on scans of several patients that are one scan, changed.

    splits: of each patient; cases: the folder of the prepared cases; masks: the file of each case's mask; drawn: whether
    they are phantoms, of which those of one CT share it.
    """
    # maps of zeros are equal, and cases of one CT share its fat and fluid
    scans = (
        _Scan(header, name)
        for header in headers
        for name in header.units
        if name not in MAY_BE_ZERO
    )
    for group in grouped((scan.voxels, scan) for scan in scans).values():
        in_splits = {splits[scan.header.patient] for scan in group}
        numbers: Numbers = {
            "scans": len(group),
            "patients": len({scan.header.patient for scan in group}),
            "splits": len(in_splits),
            "drawn": drawn,
            "named": ", ".join(map(str, group)),
            "among": ", ".join(sorted(in_splits)),
        }
        yield from ask("copies", numbers)
    # masks that lie in the folders of several patients; a box may be the field of view of all
    same = grouped(
        (header.voxels[MASK], header)
        for header in headers
        if header.case in masks and sum(header.mask_area) < np.ptp(header.mask_box, 1).prod()
    )
    for owners in same.values():
        numbers = {
            "patients": len({header.patient for header in owners}),
            "masks": len({masks[header.case].resolve() for header in owners}),
            "named": first_of([header.case for header in owners], 3),
        }
        yield from ask("copies", numbers)
    for scan, other in _find_changed(headers, cases):
        across = splits[scan.header.patient] != splits[other.header.patient]
        numbers = {"across_splits": across, "named": f"{scan} and {other}"}
        yield from (said.on(scan.header.case) for said in ask("copies", numbers))


def _find_changed(headers: Sequence[CaseHeader], cases: Path) -> list[tuple[_Scan, _Scan]]:
    """Pairs of scans of different patients whose signatures and voxels agree."""
    # those of volumes and of single slices have other lengths
    signed = [
        (_Scan(header, name), from_text(text))
        for header in headers
        for name, text in header.signatures.items()
    ]
    groups = grouped((len(signature), (scan, signature)) for scan, signature in signed)
    groups.pop(0, None)
    candidates = []
    for group in groups.values():
        scans = [scan for scan, _ in group]
        rows = np.array([signature for _, signature in group])
        flat = scans[0].header.shape[0] == 1
        for like, one, two in similar(rows, rows, LEAST_FLAT if flat else LEAST):
            scan = scans[one]
            other = scans[two]
            same_patient = scan.header.patient == other.header.patient
            if one < two and not same_patient and scan.voxels != other.voxels:
                candidates.append((like, (scan, other)))
    candidates.sort(key=lambda candidate: -candidate[0])
    fields = lru_cache(KEPT_FIELDS)(lambda case, name: _field(open_case(case), name))
    pairs = []
    for like, pair in candidates[:MOST_VERIFIED]:
        a, b = (fields(cases / f"{scan.header.case}.safetensors", scan.name) for scan in pair)
        if first("copy", {"slices": len(a), "likeness": likeness(like, a, b)}):
            pairs.append(pair)
    return pairs
