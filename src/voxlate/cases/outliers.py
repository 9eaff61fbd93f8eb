"""Scans and masks that differ from those of the other cases of a cohort, or from what their unit allows.

Each scan is described by a few numbers, and each pair of scans by its similarity; a number far from its median over the
other cases names the case. Of few cases the unit alone tells: in Hounsfield units air is -1000, soft tissue 0 to 80.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from voxlate.cases.audit import examined_cases
from voxlate.cases.case_header import CaseHeader
from voxlate.cases.scan_numbers import (
    FEWEST,
    ScanNumbers,
    numbers_of,
    oddities,
    usual_numbers,
)
from voxlate.cases.sketch import Sketch, class_curve, mirrored_similarity, pair_similarity, sketches
from voxlate.images.units import TISSUE_MAPS
from voxlate.system.codes import CODES
from voxlate.system.errors import first_of, plural
from voxlate.system.messages import Message, message

Arrays = Mapping[str, NDArray[np.generic]]
Read = Callable[[str], Arrays]  # the arrays of a case by its name

MASK = "mask"
COMPARED = 12  # cases that every case is compared with
FEWEST_PAIRS = 2  # other patients that a pair is compared with

# Classes of 16 between two curves: half of the first to another modality's, or the second to all.
ALIKE, UNLIKE = 1.5, 1.5
UNUSUAL_CONTRAST = 4.0  # times the median distance of the cohort; four scanners reached 2.8
INVERTED = 0.3  # share of the background that a mask holds, above that of the body
WHOLE, FULL = 0.99, 0.8  # share of all that such a mask holds, and of the image that may be body

# Thresholds of similarity: a ratio. Measured on 16 phantoms and 7 real heads in 3-D: pairs of one head are at least 1.2
# times as similar as the best of other heads, and 1.25 times as flipped ones. Slices (134 real) show less.
ANOTHER = 1.05  # times the best of other patients
UNUSUAL = 0.75  # of the typical ratio of a pair to other patients'
TELLING = 1.3  # typical ratio, below which pairs of the cohort cannot be told apart
BETTER, BETTER_FLAT = 1.15, 1.3  # times: of a flipped pair, or of exchanged ones
MOST_SUSPECTS = 40

SIDES = {"D": "upside down", "H": "front to back", "W": "left to right"}


@dataclass(frozen=True)
class _Pair:
    """The similarity of a scan to the reference scan of its case, and to those of other patients.

    flipped, axes: the largest one after flips, and of which axes; curve: mean class of the scan for each class of the
    reference scan, of which there are counts [BINS].
    """

    own: float
    others: tuple[float, ...]
    flipped: float
    axes: str
    curve: NDArray[np.float64]
    counts: NDArray[np.int64]

    def distance(self, curve: NDArray[np.float64]) -> float:
        """Root of the mean squared difference from another curve, in classes, over the voxels."""
        return float(np.sqrt(np.average((self.curve - curve) ** 2, weights=self.counts + 1e-9)))

    @property
    def ratio(self) -> float:
        return self.own / max(float(np.median(self.others)), 1e-6) if self.others else np.inf


class _Kind(NamedTuple):
    """What is wrong with a pair of scans: a code, numbers, and the modality whose contrast a scan has."""

    code: str
    numbers: str = ""
    modality: str = ""


@dataclass(frozen=True)
class _Finding:
    """What is wrong with a scan of a case: a code, numbers in brackets, and the scan that it is compared with."""

    name: str
    case: str
    code: str
    numbers: str = ""
    partner: str = ""


def check_outliers(headers: Sequence[CaseHeader], read: Read) -> list[Message]:
    """A message on each kind of outlier, with up to three cases; read: the arrays of a prepared case."""
    cohort = _Cohort(headers, read)
    groups = dict[tuple[str, str, str], list[_Finding]]()
    for one in cohort.findings():
        groups.setdefault((one.name, one.code, one.partner), []).append(one)
    return [_joined(several, cohort.count(several[0].name)) for several in groups.values()]


def _joined(found: Sequence[_Finding], cases: int) -> Message:
    first = found[0]
    of = f"{len(found)} of {plural(cases, 'case')}"
    numbers = f" ({first.numbers})" if first.numbers else ""
    names = first_of([one.case for one in found], 3)
    _, _, what = CODES[first.code].meaning.split(" ", 2)  # without "a scan"
    text = f"{first.name} of {names} ({of}) {what.format(partner=first.partner)}{numbers}."
    return message(first.code, text, cases=len(found))


class _Cohort:
    """The measured cases of a cohort."""

    def __init__(self, headers: Sequence[CaseHeader], read: Read) -> None:
        self.headers = {header.case: header for header in headers}
        self.read = read
        counts = Counter(name for header in headers for name in _comparable(header))
        self.reference = max(sorted(counts), key=lambda name: counts[name], default="")
        patients = {header.case: header.patient for header in headers}
        self.compared = {
            case: self._sketches(case) for case in sorted(examined_cases(patients, COMPARED))
        }
        self.scans = dict[str, dict[str, ScanNumbers]]()
        self.pairs = dict[str, dict[str, _Pair]]()
        self.masks = dict[str, tuple[float, float, float]]()
        for header in headers:
            self._measure(header)

    def count(self, name: str) -> int:
        if name == MASK:
            return sum(header.has_mask_file for header in self.headers.values())
        return sum(name in header.units for header in self.headers.values())

    def findings(self) -> Iterator[_Finding]:
        """Each scan with the first kind that fits it, then masks, then pairs of scans that are not named."""
        named = set[tuple[str, str]]()
        by_name = dict[str, list[ScanNumbers]]()
        for scans in self.scans.values():
            for name, scan in scans.items():
                by_name.setdefault(name, []).append(scan)
        usual = {name: usual_numbers(several) for name, several in by_name.items()}
        for case, scans in self.scans.items():
            for name, scan in scans.items():
                for code, numbers in oddities(name, scan, usual[name]):
                    named.add((case, name))
                    yield _Finding(name, case, code, numbers)
                    break
        for finding in self._masks(named):
            named.add((finding.case, MASK))
            yield finding
        yield from self._pairs(named)

    def _sketches(self, case: str) -> dict[str, Sketch]:
        header = self.headers[case]
        names = _comparable(header)
        if not names:
            return {}
        stored = self.read(case)
        arrays = {name: stored[name] for name in names}
        if header.has_mask_file:
            arrays[MASK] = stored[MASK] != 0
        reference = self.reference if self.reference in names else names[0]
        return sketches(arrays, reference, header.spacing_mm)

    def _measure(self, header: CaseHeader) -> None:
        case = header.case
        scans = self.compared.get(case) or self._sketches(case)
        if MASK in scans and self.reference in scans:
            inside = scans[MASK].values > 0
            body = scans[self.reference].body
            self.masks[case] = _mask_shares(inside, body)
        self.scans[case] = {
            name: numbers_of(header, name, scans.get(name), self._other(name, scans))
            for name in header.units
        }
        reference = scans.get(self.reference)
        if reference is None:
            return
        self.pairs[case] = {
            name: self._pair(header.patient, reference, name, sketch)
            for name, sketch in scans.items()
            if name != self.reference
        }

    def _other(self, name: str, scans: Mapping[str, Sketch]) -> Sketch | None:
        """The reference scan of a case, or the first other one for that scan itself."""
        others = sorted(scans.keys() - {name, MASK}, key=lambda one: (one != self.reference, one))
        return scans[others[0]] if others else None

    def _pair(self, patient: str, reference: Sketch, name: str, sketch: Sketch) -> _Pair:
        others = [
            pair_similarity(reference, scans[name])
            for case, scans in self.compared.items()
            if self.headers[case].patient != patient
            and name in scans
            and scans[name].own.shape == reference.own.shape
        ]
        flipped, axes = mirrored_similarity(reference, sketch)
        curve, counts = class_curve(reference, sketch)
        own = pair_similarity(reference, sketch)
        return _Pair(own, tuple(others), flipped, axes, curve, counts)

    def _pairs(self, named: set[tuple[str, str]]) -> Iterator[_Finding]:
        """The first kind that fits each pair; where all of a case's pairs are wrong, the reference scan is named, unless scans are exchanged."""
        pairs = {
            case: {name: pair for name, pair in by_name.items() if (case, name) not in named}
            for case, by_name in self.pairs.items()
            if (case, self.reference) not in named
        }
        kinds = dict[str, dict[str, _Kind]]()
        for name in sorted({name for by_name in pairs.values() for name in by_name}):
            of_name = {case: some[name] for case, some in pairs.items() if name in some}
            for case, kind in self._kinds(name, of_name).items():
                kinds.setdefault(case, {})[name] = kind
        for case, by_name in kinds.items():
            exchanged = any(kind.modality in by_name for kind in by_name.values())
            all_wrong = len(by_name) == len(pairs[case]) > 1 and not exchanged
            subject = (self.reference, "other scans") if all_wrong else None
            for name, kind in [*by_name.items()][: 1 if all_wrong else None]:
                which, partner = subject or (name, self.reference)
                yield _Finding(which, case, kind.code, kind.numbers, partner)

    def _kinds(self, name: str, pairs: Mapping[str, _Pair]) -> dict[str, _Kind]:
        """By case what is wrong with its pair."""
        kinds = dict[str, _Kind]()
        for case, modality in self._other_contrast(name, pairs).items():
            like = _Kind("contrast-of-modality", f"that of {modality}", modality)
            kinds[case] = like if modality else _Kind("other-contrast")
        for case in self._foreign(name, pairs):
            kinds[case] = _Kind("foreign-scan")
        for case, other in self._exchanged(name, pairs).items():
            kinds[case] = _Kind("exchanged-scan", f"{case} that of {other}")
        for case, pair in pairs.items():
            if self._mirrored(case, pair):
                kinds[case] = _Kind("turned-scan", " and ".join(SIDES[axis] for axis in pair.axes))
        return kinds

    def _mirrored(self, case: str, pair: _Pair) -> bool:
        flat = self.headers[case].shape[0] == 1
        return pair.flipped > (BETTER_FLAT if flat else BETTER) * pair.own

    def _exchanged(self, name: str, pairs: Mapping[str, _Pair]) -> dict[str, str]:
        """The cases whose reference fits this scan of another patient better, and that patient's case."""
        suspects = [
            case for case, pair in pairs.items() if pair.own < max(pair.others, default=np.inf)
        ]
        worst = sorted(suspects, key=lambda case: (pairs[case].ratio, case))[:MOST_SUSPECTS]
        scans = {case: self.compared.get(case) or self._sketches(case) for case in worst}
        found = dict[str, str]()
        for case in worst:
            best = 0.0
            for other in worst:
                if self.headers[case].patient == self.headers[other].patient:
                    continue
                own = (pairs[case].own + pairs[other].own) / 2
                crossed = pair_similarity(scans[case][self.reference], scans[other][name])
                flat = self.headers[case].shape[0] == 1
                if crossed > best and crossed > (BETTER_FLAT if flat else BETTER) * own:
                    best = crossed
                    found[case] = other
        return found

    def _foreign(self, name: str, pairs: Mapping[str, _Pair]) -> list[str]:
        """The cases whose pair is no more similar than pairs of different patients, where the others' are."""
        known = {
            case: pair
            for case, pair in pairs.items()
            if len(pair.others) >= FEWEST_PAIRS and self.headers[case].shape[0] > 1
        }
        typical = float(np.median([pair.ratio for pair in known.values()])) if known else 0.0
        if typical < TELLING:
            return []
        return [
            case
            for case, pair in known.items()
            if pair.own < ANOTHER * max(pair.others)
            and pair.ratio < UNUSUAL * typical
            and pair.own < ANOTHER * self._best_of_others(case, name)
        ]

    def _best_of_others(self, case: str, name: str) -> float:
        """The largest similarity of a scan to reference scans of other patients: small, too, where it is only noisy."""
        scan = (self.compared.get(case) or self._sketches(case))[name]
        similarities = [
            pair_similarity(scans[self.reference], scan)
            for other, scans in self.compared.items()
            if self.headers[other].patient != self.headers[case].patient
            and self.reference in scans
            and scans[self.reference].own.shape == scan.own.shape
        ]
        return max(similarities, default=np.inf)

    def _other_contrast(self, name: str, pairs: Mapping[str, _Pair]) -> dict[str, str]:
        """The cases where the classes of the two scans go together as in no other case ("") or as with another modality."""
        if name == MASK or len(pairs) < FEWEST:
            return {}
        means = {
            other: np.median(
                [by_name[other].curve for by_name in self.pairs.values() if other in by_name],
                axis=0,
            )
            for other in {other for by_name in self.pairs.values() for other in by_name} - {MASK}
        }
        apart = {
            case: {other: pair.distance(mean) for other, mean in means.items()}
            for case, pair in pairs.items()
        }
        usual = float(np.median([distances[name] for distances in apart.values()]))
        found = dict[str, str]()
        for case, distances in apart.items():
            own = distances[name]
            nearest = min(sorted(distances), key=lambda other: distances[other])
            if own > ALIKE and distances[nearest] < own / 2:
                found[case] = nearest
            elif own > max(UNLIKE, UNUSUAL_CONTRAST * usual):
                found[case] = ""
        return found

    def _masks(self, named: Collection[tuple[str, str]]) -> Iterator[_Finding]:
        for case, (inside, outside, body) in self.masks.items():
            if (case, self.reference) in named:
                continue
            numbers = f"{inside:.0%} of the body and {outside:.0%} of the rest"
            if outside > inside + INVERTED:
                yield _Finding(MASK, case, "inverted-mask", numbers)
            elif min(inside, outside) > WHOLE and body < FULL:
                yield _Finding(MASK, case, "whole-mask", numbers)


def _comparable(header: CaseHeader) -> list[str]:
    """The scans of a case that show anatomy."""
    return [name for name in header.visible if name not in TISSUE_MAPS]


def _mask_shares(inside: NDArray[np.bool_], body: NDArray[np.bool_]) -> tuple[float, float, float]:
    """The shares of the body and of the rest that a mask holds, and of the image that is body."""
    of_body, of_rest = inside[body], inside[~body]
    return (
        float(of_body.mean()) if len(of_body) else 0.0,
        float(of_rest.mean()) if len(of_rest) else 0.0,
        float(body.mean()),
    )
