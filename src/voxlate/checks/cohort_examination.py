"""The examination of a cohort while it is prepared: the fingerprints of each case, and messages on all of them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from voxlate.base.errors import first_of
from voxlate.base.groups import grouped
from voxlate.base.messages import Message, message, summarise
from voxlate.checks.case_checks import (
    check_alignment,
    check_origins,
    check_widths,
    mask_numbers,
)
from voxlate.checks.check_table import Numbers, ask, blank_messages, exact_messages
from voxlate.checks.fingerprint import Fingerprint, fingerprint, stored_fingerprint
from voxlate.checks.pairs import copies, doubtful_pairs, pictures_of
from voxlate.checks.reference import among
from voxlate.scans.cases.align import check_resampling
from voxlate.scans.cases.case import MASK, PreparedCase
from voxlate.scans.cases.case_header import CaseHeader
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.units import MAY_BE_ZERO, TISSUE_MAPS
from voxlate.scans.prepare import Examination
from voxlate.scans.survey import Inputs

Prints = Mapping[str, Fingerprint]  # by case


def _measure(case: PreparedCase, scans: Mapping[str, Volume], mask: Volume | None) -> CaseHeader:
    """The header of a case with the fingerprints of its scans, and the numbers of its mask."""
    prints = {name: fingerprint(scan) for name, scan in scans.items() if name not in TISSUE_MAPS}
    numbers = {name: dict(one.numbers) for name, one in prints.items()}
    pictures = {name: one.text for name, one in prints.items()}
    if mask is not None:
        numbers[MASK] = mask_numbers(mask, case.mask(), [*case.outlines.values()])
    return replace(case.header, numbers=numbers, pictures=pictures)


def _judge(headers: Sequence[CaseHeader], inputs: Inputs, cases: Path) -> Iterator[Message]:
    """Messages on all that is unusual in a prepared cohort."""
    found = inputs.found
    preparation = inputs.preparation
    grids = [
        (header.case, header.grid, {name: one.grid for name, one in header.origins.items()})
        for header in headers
    ]
    masks = {case.case: case.mask for case in found.cases if case.mask}
    if found.heads:
        yield from check_widths(headers)
    yield from _check_same_voxels(headers, inputs.splits, masks)
    yield from check_origins(headers)
    yield from _check_fingerprints(headers, inputs.splits)
    yield from check_resampling(grids, preparation)
    yield from check_alignment(headers, preparation)


def _check_fingerprints(
    headers: Sequence[CaseHeader], splits: Mapping[str, str]
) -> Iterator[Message]:
    """Messages on what scans say alone, beside those of the other cases, and beside the other scan of their case."""
    patients = {header.case: header.patient for header in headers}
    scans = dict[str, dict[str, Fingerprint]]()
    alone = []
    for header in headers:
        for name in header.statistics.keys() - MAY_BE_ZERO:
            said = blank_messages(header.statistics[name], name)
            alone += [one.on(header.case) for one in said]
        for name in header.pictures:
            scan = stored_fingerprint(header, name)
            assert scan is not None
            scans.setdefault(name, {})[header.case] = scan
            unit = header.units[name]
            exact = exact_messages(scan, unit, name, header.statistics[name])
            alone += [one.on(header.case) for one in exact]
        mask = header.numbers.get(MASK, {})
        alone += [one.on(header.case) for one in ask("mask", mask)]
    yield from summarise(alone)
    for name, prints in scans.items():
        yield from summarise(among(prints, patients, name))
    yield from summarise(_check_pairs(scans, patients))
    for name, prints in scans.items():
        yield from _check_copies(name, prints, patients, splits)


def _check_pairs(scans: Mapping[str, Prints], patients: Mapping[str, str]) -> Iterator[Message]:
    """Messages on scans that do not fit the most frequent other scan of their case."""
    if len(scans) < 2:
        return
    counts = Counter(chain.from_iterable((name for _ in prints) for name, prints in scans.items()))
    reference = max(sorted(counts), key=counts.__getitem__)
    for name in sorted(scans.keys() - {reference}):
        of_reference, of_name = (pictures_of(scans[one]) for one in (reference, name))
        for doubt in doubtful_pairs(of_reference, of_name, patients):
            yield doubt.message(name, reference)


def _check_copies(
    name: str, prints: Prints, patients: Mapping[str, str], splits: Mapping[str, str]
) -> Iterator[Message]:
    """Messages on scans of two patients whose pictures are almost equal."""
    for one, other in copies(pictures_of(prints), patients):
        among_splits = {splits[patients[case]] for case in (one, other)}
        named = f"{name} of {one} and {other}"
        numbers: Numbers = {"similar": 1.0, "splits": len(among_splits), "named": named}
        yield from (said.on(one) for said in ask("copies", numbers))


def _check_same_voxels(
    headers: Sequence[CaseHeader],
    splits: Mapping[str, str],
    masks: Mapping[str, Path],
) -> Iterator[Message]:
    """Messages on scans and masks of several patients with the same voxels."""
    # maps of zeros are equal, and cases of one CT share its fat and fluid
    voxels = (
        (header.voxels[name], (header, name))
        for header in headers
        for name in header.units
        if name not in MAY_BE_ZERO
    )
    for group in grouped(voxels).values():
        patients = {header.patient for header, _ in group}
        yield from ask(
            "copies",
            {
                "scans": len(group),
                "patients": len(patients),
                "splits": len({splits[patient] for patient in patients}),
                "named": ", ".join(f"{header.case}/{name}" for header, name in group),
            },
        )
    # masks that lie in the folders of several patients; a box may be the field of view of all
    same = grouped(
        (header.voxels[MASK], header)
        for header in headers
        if header.case in masks and sum(header.mask_area) < np.ptp(header.mask_box, 1).prod()
    )
    for owners in same.values():
        patients = {header.patient for header in owners}
        if len(patients) > 1 and len({masks[header.case].resolve() for header in owners}) > 1:
            named = first_of([header.case for header in owners], 3)
            text = f"One mask is that of {len(patients)} patients, in files of their own: {named}."
            yield message("same-mask", text, patients=len(patients))


EXAMINATION = Examination(_measure, _judge)
