"""Scans beside each other by their pictures: pairs of a case among the same pairs of other patients, and copies.

A pair of two scans of one patient is more similar than that of two patients, and than with one scan mirrored, whatever their
contrasts are; two patients whose scans are almost equal are one.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations

import numpy as np

from voxlate.base.array_types import AnyArray, Float64, UInt8
from voxlate.base.messages import Grade, Message, message
from voxlate.base.similarity import mutual_information
from voxlate.checks.fingerprint import BRIGHTEST, UNKNOWN, Fingerprint
from voxlate.checks.reference import mirrored, turned

BINS = 12
MOST_CASES = 40  # that are compared with each other
FEWEST_CELLS = 200  # that two pictures share
FLIPS = [*chain.from_iterable(combinations(range(3), count) for count in (1, 2, 3))]
MIRRORED = ("upside down", "front to back", "left to right")  # along the axes of a picture
FITS_TURNED, FITS_OTHER, FITS = 1.3, 1.25, 1.1  # times as similar as the pair itself
FEWEST_OTHERS = 6  # patients, with whose scans a pair is compared
TYPICAL, UNLIKE = 1.3, 0.6  # a usual pair over those of two patients; and a share of it
COPY = 0.997  # correlation of two pictures: see docs/guides/trust.md
TINY = 1e-6

Pictures = dict[str, UInt8]  # by case


def pictures_of(scans: Mapping[str, Fingerprint]) -> Pictures:
    """The pictures of scans, by case, that show a body."""
    return {case: scan.picture for case, scan in scans.items() if (scan.picture < UNKNOWN).any()}


def similarity(a: UInt8, b: UInt8) -> float:
    """Normalised mutual information of two pictures beyond 1, in classes of equal counts; 0 where they share too little."""
    both = (a != UNKNOWN) & (b != UNKNOWN) & ((a > 0) | (b > 0))
    if both.sum() < FEWEST_CELLS:
        return 0.0
    ends = (0.0, float(BINS))
    one, other = (_classes(cells[both]) for cells in (a, b))
    return float(np.nan_to_num(mutual_information(one, other, ends, ends, BINS) - 1))


def _classes(cells: AnyArray) -> UInt8:
    """Classes of equal counts; a value that is more frequent than that has one of its own."""
    edges = np.percentile(cells, np.linspace(0, 100, BINS + 1)[1:-1])
    return np.searchsorted(edges, cells, side="right").astype(np.uint8)


def doubtful_pairs(
    first: Mapping[str, UInt8],
    second: Mapping[str, UInt8],
    patients: Mapping[str, str],
    name: str,
    partner: str = "the other scan of its case",
) -> Iterator[Message]:
    """A message on each case whose two pictures, by case, do not fit each other: exchanged, turned, or of another patient.

    name: of the second scan, partner: of the first. Of more than MOST_CASES cases, those whose pairs are least similar are compared with each other.
    """
    own = {case: similarity(first[case], second[case]) for case in first.keys() & second.keys()}
    chosen = sorted(own, key=lambda case: (own[case], case))[:MOST_CASES]
    table = np.array([[similarity(first[a], second[b]) for b in chosen] for a in chosen])
    strangers = np.array([[patients[a] != patients[b] for b in chosen] for a in chosen])
    exchanged = _exchanged(table, strangers)
    for number, case in enumerate(chosen):
        others = table[number][strangers[number]]
        other = exchanged.get(number)
        flip, how = max(
            (similarity(first[case], turned(second[case], mirrored(*flip))), flip) for flip in FLIPS
        )
        crossed = 0.0 if other is None else max(table[number, other], table[other, number])
        if flip > max(FITS_TURNED * own[case], crossed, TINY):
            code = "turned-scan"
            said = f"turned {' and '.join(MIRRORED[axis] for axis in how)}"
        elif other is not None:
            code, said = "exchanged-scan", f"it fits that of {chosen[other]} better"
        elif len(others) >= FEWEST_OTHERS and _is_foreign(table, strangers, number):
            code, said = "foreign-scan", "no more similar than those of two patients"
        else:
            continue
        text = f"{name} does not fit {partner}: {said}."
        grade: Grade = "caution" if code == "foreign-scan" else "do not trust"
        yield message(code, text, grade=grade, case=case)


def fits(image: UInt8, truth: UInt8, others: Sequence[UInt8]) -> bool:
    """Whether a truth is more similar to its image than mirrored truths and those of other patients are."""
    turns = (turned(truth, mirrored(*flip)) for flip in FLIPS)
    most = max(similarity(image, other) for other in chain(turns, others))
    return similarity(image, truth) > FITS * most


def _exchanged(table: Float64, strangers: AnyArray) -> dict[int, int]:
    """The pairs of cases (number of one, of the other) whose scans fit each other better than their own."""
    own = np.maximum(np.diag(table), TINY)
    times = np.where(strangers, table / np.maximum(own[:, None], own[None, :]), 0)
    found = dict[int, int]()
    for one, other in zip(*np.unravel_index(np.argsort(-times, axis=None), times.shape)):
        if times[one, other] <= FITS_OTHER:
            break
        if one not in found and other not in found:
            found |= {int(one): int(other), int(other): int(one)}
    return found


def _is_foreign(table: Float64, strangers: AnyArray, number: int) -> bool:
    """Whether a pair is no more similar than those of two patients, where other pairs are."""
    ratios = [
        table[k, k] / max(float(np.median(row[others])), TINY)
        for k, (row, others) in enumerate(zip(table, strangers))
        if others.any()
    ]
    typical = float(np.median(ratios))
    most = float(table[number][strangers[number]].max())
    own = table[number, number]
    return typical >= TYPICAL and ratios[number] < UNLIKE * typical and own < most


def copies(pictures: Mapping[str, UInt8], patients: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The pairs of cases of two patients whose pictures of one modality are almost equal."""
    names = sorted(pictures)
    rows = np.stack([_unit(pictures[name]) for name in names]) if names else np.zeros((0, 1))
    for start in range(0, len(names), 500):
        similar = rows[start : start + 500] @ rows.T
        for one, other in np.argwhere(similar > COPY):
            a, b = names[start + one], names[other]
            if a < b and patients[a] != patients[b]:
                yield a, b


def _unit(picture: UInt8) -> AnyArray:
    """The cells of a picture without their mean, as a vector of length 1; unknown ones are dark."""
    cells = np.where(picture == UNKNOWN, 0, picture).ravel().astype(np.float32) / BRIGHTEST
    away = cells - cells.mean()
    return away / max(float(np.linalg.norm(away)), TINY)
