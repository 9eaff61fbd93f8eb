"""Scans and masks that differ from those of the other cases of a cohort, or from what their unit allows.

Each scan is described by a few numbers, and each pair of scans by its similarity; a number far from its median over the
other cases names the case. Of few cases the unit alone tells: in Hounsfield units air is -1000, soft tissue 0 to 80.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice, product

import numpy as np
from numpy.typing import NDArray

from voxlate.base.arrays import AnyArray, Bool, Float64
from voxlate.base.codes import codes
from voxlate.base.errors import first_of, plural
from voxlate.base.groups import grouped
from voxlate.base.messages import Message, message
from voxlate.checks.audit import choose_cases
from voxlate.checks.scan_numbers import FEWEST, ScanNumbers, numbers_of, oddities, usual_numbers
from voxlate.checks.sketch import Sketch, best_flip, class_curve, pair_similarity, sketches
from voxlate.scans.cases.case import MASK
from voxlate.scans.cases.case_header import CaseHeader
from voxlate.scans.images.units import TISSUE_MAPS

Arrays = Mapping[str, AnyArray]
Read = Callable[[str], Arrays]  # the arrays of a case by its name

COMPARED = 12  # cases that every case is compared with
FEWEST_PAIRS = 2  # other patients that a pair is compared with

# Distance of a scan's class curve from the median curve of its modality, in classes of 16, above which a scan is reported:
# ALIKE where the curve of another modality is at most half as far away, UNLIKE where no other is.
ALIKE, UNLIKE = 1.5, 1.5
UNUSUAL_CONTRAST = 4.0  # least distance for UNLIKE in units of the cohort's median; scans of four scanners reached 2.8
INVERTED = 0.3  # a mask is inverted where it holds this much more of the background than of the body, as shares
WHOLE = 0.99  # share of the body, and of the rest, from which a mask covers everything
FULL = 0.8  # share of the image that a body fills, from which such a mask is no fault

# The ratio of a pair is the similarity of its two scans over the best similarity with a scan of another patient. Measured
# on 16 phantoms and 7 real heads in 3-D: the ratio is at least 1.2, and a pair is at least 1.25 times as similar as the
# same pair with one scan flipped. In slices (134 real ones) both are smaller.
ANOTHER = 1.05  # ratio from which a pair is of one patient
UNUSUAL = 0.75  # share of the cohort's typical ratio from which a pair is of one patient
TELLING = 1.3  # typical ratio below which this cohort's pairs are not judged
BETTER, BETTER_FLAT = (
    1.15,
    1.3,
)  # least gain in similarity by a flip or an exchange; of volumes, and of slices
MOST_SUSPECTS = 40

SIDES = {"D": "upside down", "H": "front to back", "W": "left to right"}


@dataclass(frozen=True)
class _Pair:
    """The similarity of a scan to the reference scan of its case, and to those of other patients.

    flipped, axes: the largest one after flips, and of which axes; curve: mean class of the scan for each class of the
    reference scan, of which there are counts [BINS].
    """

    own: float
    others: Sequence[float]
    flipped: float
    axes: str
    curve: Float64
    counts: NDArray[np.int64]

    def distance(self, curve: Float64) -> float:
        """Root of the mean squared difference from another curve, in classes, over the voxels."""
        return float(np.sqrt(np.average((self.curve - curve) ** 2, weights=self.counts + 1e-9)))

    @property
    def ratio(self) -> float:
        """Its own similarity over the median of those to other patients."""
        return self.own / max(float(np.median(self.others)), 1e-6) if self.others else np.inf


@dataclass(frozen=True)
class _Finding:
    """What is wrong with a scan of a case: a code, numbers in brackets, and the scan that it is compared with.

    modality: whose contrast the scan has.
    """

    name: str
    case: str
    code: str
    numbers: str = ""
    partner: str = ""
    modality: str = ""


def check_outliers(headers: Sequence[CaseHeader], read: Read) -> list[Message]:
    """A message on each kind of outlier, with up to three cases; read: the arrays of a prepared case."""
    groups = dict[tuple[str, str, str], list[_Finding]]()
    for finding in _Cohort(headers, read).findings():
        groups.setdefault((finding.name, finding.code, finding.partner), []).append(finding)
    messages = list[Message]()
    for (name, code, partner), found in groups.items():
        cases = sum(h.has_mask_file if name == MASK else name in h.units for h in headers)
        names = first_of([finding.case for finding in found], 3)
        numbers = f" ({found[0].numbers})" if found[0].numbers else ""
        _, _, what = codes()[code].meaning.split(" ", 2)  # without "a scan"
        text = f"{name} of {names} ({len(found)} of {plural(cases, 'case')}) {what.format(partner=partner)}{numbers}."
        messages.append(message(code, text, cases=len(found)))
    return messages


class _Cohort:
    """The measured cases of a cohort."""

    def __init__(self, headers: Sequence[CaseHeader], read: Read) -> None:
        self.headers = {header.case: header for header in headers}
        self.read = read
        counts = Counter(chain.from_iterable(map(_comparable, headers)))
        self.reference = max(sorted(counts), key=lambda name: counts[name], default="")
        patients = {header.case: header.patient for header in headers}
        self.compared = dict[str, Mapping[str, Sketch]]()
        for case in sorted(choose_cases(patients, COMPARED)):
            self.compared[case] = self._sketches(case)
        self.scans = dict[tuple[str, str], ScanNumbers]()  # by case and modality
        self.pairs = dict[str, dict[str, _Pair]]()
        self.masks = list[_Finding]()
        for header in headers:
            self._measure(header)

    def findings(self) -> Iterator[_Finding]:
        """Each scan with the first kind that fits it, then masks, then pairs of scans that are not named."""
        named = set[tuple[str, str]]()
        by_name = grouped((name, scan) for (_, name), scan in self.scans.items())
        usual = {name: usual_numbers(several) for name, several in by_name.items()}
        for (case, name), scan in self.scans.items():
            for code, numbers in islice(oddities(name, scan, usual[name]), 1):
                named.add((case, name))
                yield _Finding(name, case, code, numbers)
        for finding in self.masks:
            if (finding.case, self.reference) not in named:
                named.add((finding.case, MASK))
                yield finding
        yield from self._pairs(named)

    def _sketches(self, case: str) -> Mapping[str, Sketch]:
        header = self.headers[case]
        names = _comparable(header)
        if case in self.compared or not names:
            return self.compared.get(case, {})
        stored = self.read(case)
        arrays = {name: stored[name] for name in names}
        if header.has_mask_file:
            arrays[MASK] = stored[MASK] != 0
        reference = self.reference if self.reference in names else names[0]
        return sketches(arrays, reference, header.spacing_mm)

    def _measure(self, header: CaseHeader) -> None:
        case = header.case
        scans = self._sketches(case)
        reference = scans.get(self.reference)
        for name in header.units:
            # compared with the reference scan; that one with the first other scan
            others = sorted(scans.keys() - {name, MASK}, key=lambda k: (k != self.reference, k))
            other = scans[others[0]] if others else None
            self.scans[case, name] = numbers_of(header, name, scans.get(name), other)
        if reference is None:
            return
        if MASK in scans:
            self.masks += _check_mask(case, scans[MASK].values > 0, reference.body)
        self.pairs[case] = {
            name: self._pair(header.patient, reference, name, sketch)
            for name, sketch in scans.items()
            if name != self.reference
        }

    def _others(self, patient: str, name: str, like: Sketch) -> list[Sketch]:
        """The sketches of a scan of other patients on the same lattice, of the cases that every case is compared with."""
        return [
            scans[name]
            for case, scans in self.compared.items()
            if self.headers[case].patient != patient
            and name in scans
            and scans[name].own.shape == like.own.shape
        ]

    def _pair(self, patient: str, reference: Sketch, name: str, scan: Sketch) -> _Pair:
        others = [
            pair_similarity(reference, other) for other in self._others(patient, name, reference)
        ]
        flipped, axes = best_flip(reference, scan)
        own = pair_similarity(reference, scan)
        return _Pair(own, others, flipped, axes, *class_curve(reference, scan))

    def _pairs(self, named: Collection[tuple[str, str]]) -> Iterator[_Finding]:
        """The first kind that fits each pair; where all of a case's pairs are wrong, the reference scan is named, unless scans are exchanged."""
        pairs = dict[str, dict[str, _Pair]]()
        for case, by_name in self.pairs.items():
            if (case, self.reference) not in named:
                pairs[case] = {name: by_name[name] for name in by_name if (case, name) not in named}
        found = defaultdict[str, dict[str, _Finding]](dict)
        for name in sorted(set(chain.from_iterable(pairs.values()))):
            of_name = {case: some[name] for case, some in pairs.items() if name in some}
            for finding in self._check_pairs(name, of_name):
                found[finding.case][name] = finding
        for case, findings in found.items():
            several = [*findings.values()]
            exchanged = any(finding.modality in findings for finding in several)
            if len(several) == len(pairs[case]) > 1 and not exchanged:
                several = [replace(several[0], name=self.reference, partner="other scans")]
            yield from several

    def _check_pairs(self, name: str, pairs: Mapping[str, _Pair]) -> Iterator[_Finding]:
        """What is wrong with the pairs of a scan with the reference scans; of several findings on a case, the last counts."""
        finding = partial(_Finding, name, partner=self.reference)
        yield from self._other_contrast(name, pairs)
        for case in self._foreign(name, pairs):
            yield finding(case, "foreign-scan")
        for case, other in self._find_exchanged(name, pairs).items():
            yield finding(case, "exchanged-scan", f"{case} that of {other}")
        for case, pair in pairs.items():
            if pair.flipped > self._better(case) * pair.own:
                how = " and ".join(SIDES[axis] for axis in pair.axes)
                yield finding(case, "turned-scan", how)

    def _better(self, case: str) -> float:
        """How many times as similar a flipped pair, or an exchanged one, must be."""
        return BETTER_FLAT if self.headers[case].shape[0] == 1 else BETTER

    def _find_exchanged(self, name: str, pairs: Mapping[str, _Pair]) -> dict[str, str]:
        """The cases whose reference fits this scan of another patient better, and that patient's case."""
        suspects = [
            case for case, pair in pairs.items() if pair.own < max(pair.others, default=np.inf)
        ]
        worst = sorted(suspects, key=lambda case: (pairs[case].ratio, case))[:MOST_SUSPECTS]
        scans = {case: self._sketches(case) for case in worst}
        best = dict[str, tuple[float, str]]()
        for case, other in product(worst, worst):
            if self.headers[case].patient == self.headers[other].patient:
                continue
            own = (pairs[case].own + pairs[other].own) / 2
            crossed = pair_similarity(scans[case][self.reference], scans[other][name])
            least, _ = best.get(case, (0.0, ""))
            if crossed > max(least, self._better(case) * own):
                best[case] = crossed, other
        return {case: other for case, (_, other) in best.items()}

    def _foreign(self, name: str, pairs: Mapping[str, _Pair]) -> Iterator[str]:
        """The cases whose pair is no more similar than pairs of different patients, where the others' are."""
        known = {
            case: pair
            for case, pair in pairs.items()
            if len(pair.others) >= FEWEST_PAIRS and self.headers[case].shape[0] > 1
        }
        typical = float(np.median([pair.ratio for pair in known.values()])) if known else 0.0
        for case, pair in known.items() if typical >= TELLING else ():
            if pair.own >= ANOTHER * max(pair.others) or pair.ratio >= UNUSUAL * typical:
                continue
            # small, too, where the scan is only noisy
            scan = self._sketches(case)[name]
            references = self._others(self.headers[case].patient, self.reference, scan)
            similarities = [pair_similarity(other, scan) for other in references]
            if pair.own < ANOTHER * max(similarities, default=np.inf):
                yield case

    def _other_contrast(self, name: str, pairs: Mapping[str, _Pair]) -> Iterator[_Finding]:
        """The cases where the contrast of a scan differs from that of its modality in the cohort, or is another modality's."""
        if name == MASK or len(pairs) < FEWEST:
            return
        curves = grouped(
            (other, pair.curve)
            for by_name in self.pairs.values()
            for other, pair in by_name.items()
        )
        means = {
            other: np.median(curves[other], axis=0) for other in sorted(curves.keys() - {MASK})
        }
        apart = dict[str, dict[str, float]]()
        for case, pair in pairs.items():
            apart[case] = {other: pair.distance(mean) for other, mean in means.items()}
        usual = float(np.median([distances[name] for distances in apart.values()]))
        for case, distances in apart.items():
            own = distances[name]
            nearest = min(distances, key=distances.__getitem__)
            if own > ALIKE and distances[nearest] < own / 2:
                code, like = "contrast-of-modality", f"that of {nearest}"
                yield _Finding(name, case, code, like, self.reference, nearest)
            elif own > max(UNLIKE, UNUSUAL_CONTRAST * usual):
                yield _Finding(name, case, "other-contrast", partner=self.reference)


def _comparable(header: CaseHeader) -> list[str]:
    """The scans of a case that show anatomy."""
    return [name for name in header.visible if name not in TISSUE_MAPS]


def _check_mask(case: str, inside: Bool, body: Bool) -> list[_Finding]:
    """What is wrong with the mask of a case."""
    of_body, of_rest, share = (
        float(part.mean()) if part.size else 0.0 for part in (inside[body], inside[~body], body)
    )
    numbers = f"{of_body:.0%} of the body and {of_rest:.0%} of the rest"
    if of_rest > of_body + INVERTED:
        return [_Finding(MASK, case, "inverted-mask", numbers)]
    if min(of_body, of_rest) > WHOLE and share < FULL:
        return [_Finding(MASK, case, "whole-mask", numbers)]
    return []
