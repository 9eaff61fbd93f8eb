"""The examination of a cohort while it is prepared: the fingerprints of each case, and messages on all of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from voxlate.base.groups import grouped
from voxlate.base.messages import Message, message
from voxlate.checks.check_table import (
    Numbers,
    ask,
    check_apart,
    check_guesses,
    exact_messages,
    mask_numbers,
    one_scan,
)
from voxlate.checks.fingerprint import Fingerprint, fingerprint, stored_fingerprint
from voxlate.checks.pairs import copies, doubtful_pairs, pictures_of
from voxlate.checks.reference import among
from voxlate.scans.cases.align import Preparation
from voxlate.scans.cases.case import MASK, CaseHeader, PreparedCase
from voxlate.scans.images.grid import Volume, share_inside
from voxlate.scans.images.units import MAY_BE_ZERO, TISSUE_MAPS
from voxlate.scans.prepare import Examination, Inputs

Prints = Mapping[str, Fingerprint]  # by case
Copies = tuple[list[str], Message]  # cases that hold copies of one scan, and what is said of them

LEAST_KEPT = 0.5  # of a scan's box inside the case's grid: less is reported


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
    yield from check_origins(headers)
    scans = _scans_of(headers)
    copied = [*_find_copies(headers, scans, inputs.splits)]
    yield from (said for _, said in copied)
    yield from _alone(headers, scans)
    # a scan and its copies are no others: they would make correct pairs doubtful
    owners = _owners(headers, [cases for cases, _ in copied])
    for name, prints in (*scans.items(), (MASK, _masks_of(headers))):
        yield from among(prints, owners, name)
    yield from _check_pairs(scans, owners)
    yield from check_resampling(headers, inputs.preparation)
    yield from check_alignment(headers)


def _scans_of(headers: Sequence[CaseHeader]) -> Mapping[str, Prints]:
    """The fingerprints of all cases, by scan."""
    scans = dict[str, dict[str, Fingerprint]]()
    for header in headers:
        for name in header.pictures:
            scan = stored_fingerprint(header, name)
            assert scan is not None
            scans.setdefault(name, {})[header.case] = scan
    return scans


def _masks_of(headers: Sequence[CaseHeader]) -> Prints:
    """The numbers of the masks that were given, by case."""
    nothing = Fingerprint.none()
    return {
        header.case: Fingerprint(header.numbers[MASK], nothing.picture)
        for header in headers
        if MASK in header.numbers
    }


def _alone(headers: Sequence[CaseHeader], scans: Mapping[str, Prints]) -> Iterator[Message]:
    """Messages on what each scan says by itself."""
    for header in headers:
        case = header.case
        said = ask("mask", header.numbers.get(MASK, {}))
        for name, statistics in header.statistics.items():
            if statistics.blank and name not in MAY_BE_ZERO:
                text = f"Every voxel of {name} is {statistics.all.at(0):.4g}."
                said.append(message("blank", text))
            elif not statistics.blank and name in header.pictures:
                said += exact_messages(scans[name][case], header.units[name], name)
        same = grouped((header.voxels[name], name) for name in header.pictures)
        said += [one_scan(held) for held in same.values() if len(held) > 1]
        yield from (one.on(case) for one in said)


def _check_pairs(scans: Mapping[str, Prints], patients: Mapping[str, str]) -> Iterator[Message]:
    """Messages on scans that do not fit the most frequent other scan of their case."""
    if len(scans) < 2:
        return
    pictures = {name: pictures_of(prints) for name, prints in sorted(scans.items())}
    reference = max(pictures, key=lambda name: len(scans[name]))
    for name in sorted(pictures.keys() - {reference}):
        yield from doubtful_pairs(pictures[reference], pictures[name], patients, name, reference)


def _find_copies(
    headers: Sequence[CaseHeader], scans: Mapping[str, Prints], splits: Mapping[str, str]
) -> Iterator[Copies]:
    """Scans of several patients with the same voxels, or whose pictures are almost equal."""
    by_case = {header.case: header for header in headers}
    patients = {case: header.patient for case, header in by_case.items()}
    # maps of zeros are equal, and cases of one CT share its fat and fluid
    voxels = (
        (header.voxels[name], (header.case, name))
        for header in headers
        for name in header.units
        if name not in MAY_BE_ZERO
    )
    for same in grouped(voxels).values():
        yield from _copies("same", same, patients, splits)
    for name, prints in scans.items():
        for one, other in copies(pictures_of(prints), patients):
            if by_case[one].voxels[name] != by_case[other].voxels[name]:
                yield from _copies("changed", [(one, name), (other, name)], patients, splits)


def _copies(
    kind: str,
    held: Sequence[tuple[str, str]],
    patients: Mapping[str, str],
    splits: Mapping[str, str],
) -> Iterator[Copies]:
    """The cases and the message of copies of one scan; held: by which cases, under which names."""
    cases = [case for case, _ in held]
    owners = {patients[case] for case in cases}
    among_splits = {splits[patient] for patient in owners}
    too_good = (
        "They are in several splits, so that scores are too good."
        if len(among_splits) > 1
        else "They are in one split."
    )
    numbers: Numbers = {
        kind: 1.0,
        "patients": len(owners),
        "splits": len(among_splits),
        "named": ", ".join(f"{case}/{name}" for case, name in held),
        "too_good": too_good,
    }
    for said in ask("copies", numbers):
        yield cases, said


def _owners(headers: Sequence[CaseHeader], copied: Sequence[Sequence[str]]) -> dict[str, str]:
    """The patient of each case; of cases that hold copies of one scan, one for all."""
    owners = {header.case: header.patient for header in headers}
    for cases in copied:
        replaced = {owners[case] for case in cases}
        first = owners[cases[0]]
        for case, owner in owners.items():
            if owner in replaced:
                owners[case] = first
    return owners


def check_alignment(headers: Sequence[CaseHeader]) -> Iterator[Message]:
    """A message on each misaligned pair, the worst first, and on what cannot be measured."""
    pairs = [(header, *scan) for header in headers for scan in header.misaligned.items()]
    for header, name, found in sorted(pairs, key=lambda pair: -(pair[-1].median_mm or 0.0)):
        yield from (said.on(header.case) for said in check_apart(header, name, found))


def check_origins(headers: Sequence[CaseHeader]) -> Iterator[Message]:
    """Messages on what was assumed of scans, and on registrations that failed."""
    for header in headers:
        for name, origin in header.origins.items():
            yield from check_guesses(name, origin.guesses, header.case)
        for name, scan in header.registered.items():
            if scan.kept != scan.asked:
                gain = f"{scan.before:.4f} before, {scan.after:.4f} after"
                left = "resampled by its header" if scan.kept == "none" else f"kept {scan.kept}"
                yield message(
                    "not-registered",
                    f"{name}: {scan.asked} registration did not make it more similar to {scan.to}, {left} (mutual information {gain}).",
                    case=header.case,
                )


def check_resampling(headers: Sequence[CaseHeader], preparation: Preparation) -> Iterator[Message]:
    """A message on each modality that resampling cuts, unless the user chose the voxels."""
    if preparation.changes_voxels or not (preparation.resample or preparation.register):
        return
    scans = grouped((name, header) for header in headers for name in header.origins)
    for name, having in scans.items():
        kept = {one.case: share_inside(one.origins[name].grid, one.grid) for one in having}
        cut = [case for case in kept if kept[case] < LEAST_KEPT and not preparation.register]
        if cut:
            yield message(
                "is-cut",
                f"{name} IS CUT to the case's grid in {len(cut)} of {len(headers)} cases: in {cut[0]} {kept[cut[0]]:.0%} of its volume lies on it.",
                cases=len(cut),
                kept=kept[cut[0]],
            )


EXAMINATION = Examination(_measure, _judge)
