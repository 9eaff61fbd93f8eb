"""Scans that several patients of a cohort share by mistake: the same voxels, or copies that were changed."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from voxlate.cases.case import MASK, PreparedCase, open_case
from voxlate.cases.case_header import CaseHeader
from voxlate.images.mask import foreground
from voxlate.images.same_scan import (
    LEAST,
    LEAST_FLAT,
    SAME,
    SAME_FLAT,
    Field,
    Signature,
    as_text,
    correlation,
    field_of,
    from_text,
    signature_of,
    similar,
)
from voxlate.images.units import TISSUE_MAPS
from voxlate.system.errors import first_of, plural
from voxlate.system.messages import Message, message

MOST_VERIFIED = 500  # pairs of similar signatures whose voxels are compared, the most similar first
KEPT_FIELDS = 64
SEEN = 0.85  # correlation of signatures where no voxels are there to compare: other patients reached 0.71
LARGEST = 1 << 26
Scan = tuple[CaseHeader, str]  # a case and a modality


def signatures(case: PreparedCase) -> dict[str, str]:
    """The signatures (see images/same_scan.py) of a case's scans, as text; those of blank scans are empty."""
    shown = [name for name in case.header.visible if name not in TISSUE_MAPS]
    return {name: as_text(signature_of(_field(case, name))) for name in shown}


def is_copy(case: PreparedCase, names: Collection[str], known: Iterable[str]) -> bool:
    """Whether the signature of a scan with one of these names is almost one of those that are known.

    Scans of more than LARGEST voxels are not compared, because synthesis has little memory left beside them.
    """
    others = defaultdict[int, list[Signature]](list)
    for text in known:
        signature = from_text(text)
        others[len(signature)].append(signature)
    if not others or math.prod(case.header.shape) > LARGEST:
        return False
    for name in set(names) & set(case.header.visible) - TISSUE_MAPS.keys():
        own = signature_of(_field(case, name))
        if len(own) and others[len(own)] and similar(own[None], np.array(others[len(own)]), SEEN):
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
) -> Iterator[Message]:
    """Messages on scans and masks with the same voxels, and on scans of several patients that are one scan, changed.

    splits: of each patient; cases: the folder of the prepared cases; masks: the file of each case's mask.
    """
    yield from _same_voxels(headers, splits)
    yield from _same_masks(headers, masks)
    pairs = _changed_copies(headers, cases)
    if not pairs:
        return
    shown = [f"{one.case}/{name} and {other.case}/{its}" for (one, name), (other, its) in pairs]
    across = sum(splits[one.patient] != splits[other.patient] for (one, _), (other, _) in pairs)
    leak = ""
    if across:
        leak = f" {plural(across, 'pair')} in two splits: scores will be too good."
    text = f"{plural(len(pairs), 'pair')} of scans of different patients show one scan, changed by noise, mirroring, a shift, a crop, resampling or its contrast: {first_of(shown, 3)}.{leak}"
    yield message("changed-copy", text, pairs=len(pairs), across_splits=across)


def _same_voxels(headers: Sequence[CaseHeader], splits: Mapping[str, str]) -> Iterator[Message]:
    same: dict[str, list[Scan]] = defaultdict(list)
    for header in headers:
        for name in header.units:
            same[header.voxels[name]].append((header, name))
    for group in same.values():
        if len(group) == 1:
            continue
        names = ", ".join(f"{header.case}/{name}" for header, name in group)
        patients = {header.patient for header, _ in group}
        across = {splits[patient] for patient in patients}
        where = " of different patients" if len(patients) > 1 else ""
        leak = ""
        if len(across) > 1:
            leak = f", in the splits {', '.join(sorted(across))}: scores will be too good"
        text = f"The same voxels{where}: {names}{leak}."
        yield message("same-voxels", text, scans=len(group), splits=len(across))


def _same_masks(headers: Sequence[CaseHeader], masks: Mapping[str, Path]) -> Iterator[Message]:
    """A message for each mask that lies in the folders of several patients; a box may be the field of view of all."""
    same = defaultdict[str, list[CaseHeader]](list)
    for header in headers:
        sides = [end - first for first, end in header.mask_box]
        if header.case in masks and sum(header.mask_area) < math.prod(sides):
            same[header.voxels[MASK]].append(header)
    for group in same.values():
        patients = {header.patient for header in group}
        files = {masks[header.case].resolve() for header in group}
        if len(patients) > 1 and len(files) > 1:
            names = first_of([header.case for header in group], 3)
            text = f"One mask is that of {len(patients)} patients, in files of their own: {names}."
            yield message("same-mask", text, patients=len(patients))


def _changed_copies(headers: Sequence[CaseHeader], cases: Path) -> list[tuple[Scan, Scan]]:
    """Pairs of scans of different patients whose signatures and voxels agree."""

    @lru_cache(KEPT_FIELDS)
    def field(case: str, name: str) -> Field:
        return _field(open_case(cases / f"{case}.safetensors"), name)

    candidates = list[tuple[float, Scan, Scan]]()
    for scans, rows in _by_length(headers):
        flat = scans[0][0].shape[0] == 1
        for like, first, second in similar(rows, rows, LEAST_FLAT if flat else LEAST):
            one, other = scans[first], scans[second]
            same = one[0].voxels[one[1]] == other[0].voxels[other[1]]
            if first < second and one[0].patient != other[0].patient and not same:
                candidates.append((like, one, other))
    candidates.sort(key=lambda pair: -pair[0])
    found = list[tuple[Scan, Scan]]()
    for like, one, other in candidates[:MOST_VERIFIED]:
        fields = [field(header.case, name) for header, name in (one, other)]
        same_from = SAME_FLAT if fields[0].shape[0] == 1 else SAME
        if like + correlation(*fields) >= same_from:
            found.append((one, other))
    return found


def _by_length(
    headers: Sequence[CaseHeader],
) -> Iterator[tuple[list[Scan], Signature]]:
    """The scans with signatures of one length, those of volumes or of single slices, and their signatures [N, K]."""
    groups = defaultdict[int, list[tuple[Scan, Signature]]](list)
    for header in headers:
        for name, text in header.signatures.items():
            if text:
                signature = from_text(text)
                groups[len(signature)].append(((header, name), signature))
    for group in groups.values():
        yield [scan for scan, _ in group], np.array([signature for _, signature in group])
