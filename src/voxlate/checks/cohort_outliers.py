"""Scans and masks that differ from those of the other cases of a cohort, or from what their unit allows.

Each scan is described by a few numbers, and each pair of scans by its similarity; a number far from its median over the
other cases names the case.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from voxlate.base.array_types import AnyArray, Bool
from voxlate.base.errors import BadInput, first_of, plural
from voxlate.base.groups import grouped
from voxlate.base.messages import Message, message
from voxlate.checks.check_table import first
from voxlate.checks.pairs import Pairs, Scans
from voxlate.checks.scan_numbers import Finding, ScanNumbers, numbers_of, odd_scans
from voxlate.checks.thumbnail import thumbnails
from voxlate.scans.cases.case import MASK
from voxlate.scans.cases.case_header import CaseHeader
from voxlate.scans.images.units import SHOW_ANATOMY, TISSUE_MAPS

Arrays = Mapping[str, AnyArray]
Read = Callable[[str], Arrays]  # the arrays of a case by its name


def check_outliers(headers: Sequence[CaseHeader], read: Read) -> list[Message]:
    """A message on each kind of outlier, with up to three cases; read: the arrays of a prepared case."""
    of = Counter(
        chain.from_iterable(
            [*header.units, *([MASK] if header.has_mask_file else [])] for header in headers
        )
    )
    return finding_messages(_findings(headers, read), of)


def finding_messages(findings: Iterable[Finding], of: Mapping[str, int]) -> list[Message]:
    """A message on each kind of finding, with up to three cases; of: the number of all cases by name."""
    groups = grouped(((one.name, one.code, one.partner), one) for one in findings)
    messages = []
    for (name, code, partner), found in groups.items():
        names = first_of([finding.case for finding in found], 3)
        numbers = f" ({found[0].numbers})" if found[0].numbers else ""
        messages.append(
            message(
                code,
                f"{name} of {names} ({len(found)} of {plural(of[name], 'case')}) {found[0].clause(partner)}{numbers}.",
                cases=len(found),
            )
        )
    return messages


def _findings(headers: Sequence[CaseHeader], read: Read) -> Iterator[Finding]:
    """Each scan with the first row that fits it, then masks, then pairs of scans that are not named."""
    by_case = {header.case: header for header in headers}
    counts = Counter(chain.from_iterable(map(comparable, headers)))
    reference = max(sorted(counts), key=counts.__getitem__, default="")

    def thumbnails_of(case: str) -> Scans:
        """The thumbnails of the scans of a case that show anatomy, and of its mask file."""
        header = by_case[case]
        names = comparable(header)
        if not names:
            return {}
        stored = read(case)
        arrays = {name: stored[name] for name in names}
        if header.has_mask_file:
            arrays[MASK] = stored[MASK] != 0
        return thumbnails(arrays, reference if reference in names else names[0], header.spacing_mm)

    units = {*chain.from_iterable(header.units.items() for header in headers)}
    unasked = {MASK, *(name for name, unit in units if unit == "HU")}
    maps = {name for name, unit in units if unit not in SHOW_ANATOMY}
    patients = {header.case: header.patient for header in headers}
    pairs = Pairs(patients, reference, thumbnails_of, unasked, maps)
    numbers = defaultdict[str, dict[str, ScanNumbers]](dict)  # by modality and case
    for header in headers:
        scans = pairs.thumbnails(header.case)
        in_pairs = pairs.measure(header.case, scans)
        for name, unit in header.units.items():
            # compared with the reference scan; that one with the first other scan
            others = sorted(scans.keys() - {name, MASK}, key=lambda k: (k != reference, k))
            of_scan = numbers_of(
                name,
                unit,
                header.statistics[name],
                header.origins[name].grid.spacing_mm,
                scans.get(name),
                scans[others[0]] if others else None,
            )
            numbers[name][header.case] = {**of_scan, **in_pairs.get(name, {})}
        if MASK in scans and reference in scans:
            numbers[MASK][header.case] = _mask_numbers(
                scans[MASK].values > 0, scans[reference].body
            )
    odd = {(one.case, one.name): one for one in odd_scans(numbers)}
    # a body is measured in another scan of the case, which may be the wrong one
    several = Counter(case for case, name in odd if name != MASK)
    for (case, name), one in [*odd.items()]:
        is_of_other = one.code == "empty-body" and several[case] > 1
        if is_of_other or (name == MASK and (case, reference) in odd):
            del odd[case, name]
    yield from odd.values()
    yield from pairs.findings(odd)


def comparable(header: CaseHeader) -> list[str]:
    """The scans of a case that show anatomy."""
    return [name for name in header.visible if name not in TISSUE_MAPS]


def _mask_numbers(inside: Bool, body: Bool) -> dict[str, float]:
    """The shares of a body, and of the rest of the image, that a mask holds, and the share of the image that the body has."""
    of_body, of_rest, share = (
        float(part.mean()) if part.size else 0.0 for part in (inside[body], inside[~body], body)
    )
    more = of_rest - of_body
    return {"of_body": of_body, "of_rest": of_rest, "body": share, "more_outside": more}


def refuse_misplaced(path: Path, inside: Bool, body: Bool, of_values: ScanNumbers) -> None:
    """Raise BadInput where a mask is a scan, holds the background of the truth, or is that of another body.

    of_values: the numbers of the mask's values.
    """
    size = float(inside.sum()) / max(1, body.sum())
    numbers = {
        **_mask_numbers(inside, body),
        **of_values,
        "size": size,
        "in_body": float(body[inside].mean()) if size else 1.0,
    }
    row = first("of_cohort", numbers)
    if row and row.code != "whole-mask":
        raise BadInput(
            f"{path}: expected a mask on the body of this truth, found one that holds {row.brief.format_map(numbers)}. Take that of the same scan, invert it, or choose another --mask."
        )
