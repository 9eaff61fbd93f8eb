"""Scans of cases that do not fit the other scans of their case, told by the same pairs of other patients.

Each scan is compared with the reference scan of its case, with those of other patients, and with their scans of its own
modality. Limits are in limits.toml.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product

import numpy as np

from voxlate.base.array_types import Float64
from voxlate.base.groups import grouped
from voxlate.base.similarity import Counts
from voxlate.checks.check_table import Measured, first
from voxlate.checks.scan_numbers import TINY, Finding
from voxlate.checks.thumbnail import (
    Thumbnail,
    best_flip,
    class_curve,
    pair_similarity,
    resemblance,
)
from voxlate.scans.cases.alignment_audit import choose_cases
from voxlate.scans.cases.case import MASK

COMPARED = 12  # cases that every case is compared with
MOST_SUSPECTS = 40
# Of the median of a cohort's single slices, below which one shows too little to compare, as at the crown: 134 of real heads have 0.31 or more.
LEAST_AREA = 0.2
CLEAR = 1.25  # times as similar as with any other patient, from which a pair is no suspect

Scans = Mapping[str, Thumbnail]
ByCase = dict[str, Measured]


@dataclass(frozen=True)
class _Pair:
    """The similarity of a scan to the reference scan of its case, and to those of other patients.

    flipped, how: the largest one after flips, and after which; curve: mean class of the scan for each class of the
    reference scan in each half, of which there are counts; both [2, BINS]; slices: along D; area_mm2: of the box of the
    smaller body in the plane.
    """

    own: float
    others: Sequence[float]
    flipped: float
    how: str
    curve: Float64
    counts: Counts
    slices: int
    area_mm2: float

    def distance(self, curve: Float64) -> float:
        """Root of the mean squared difference from another curve, in classes, over the voxels of the worse half."""
        squares = ((self.curve - curve) ** 2 * self.counts).sum(1)
        return float(np.sqrt(squares / np.maximum(self.counts.sum(1), 1)).max())

    def halves(self, curve: Float64) -> float:
        """How much both halves differ in their distance from another curve, in classes, over the voxels of both."""
        lower, upper = self.curve - curve
        shared = self.counts.min(0)
        return float(np.sqrt(((upper - lower) ** 2 * shared).sum() / max(shared.sum(), 1)))

    @property
    def flip(self) -> float:
        """How many times as similar it is after flips."""
        return self.flipped / max(self.own, TINY)

    @property
    def is_suspect(self) -> bool:
        """Whether it is hardly more similar than some pair of two patients."""
        return self.own < CLEAR * max(self.others, default=np.inf)

    @property
    def ratio(self) -> float:
        """Its own similarity over the median of those to other patients."""
        return self.own / max(float(np.median(self.others)), TINY) if self.others else np.inf


class Pairs:
    """The scans of several cases beside the reference scan of each.

    patients: by case; thumbnails: gives those of a case by modality, again where it is asked again; unasked: scans that are
    not compared with those of their own name, as CT, whose soft tissue has no contrast; maps: scans in units that show no
    anatomy.
    """

    def __init__(
        self,
        patients: Mapping[str, str],
        reference: str,
        thumbnails: Callable[[str], Scans],
        unasked: Collection[str],
        maps: Collection[str],
    ) -> None:
        self.patients = patients
        self.reference = reference
        self.unasked = unasked
        self.maps = maps
        self.compared = {
            case: thumbnails(case) for case in sorted(choose_cases(patients, COMPARED))
        }
        self.read = thumbnails
        self.pairs = dict[str, dict[str, _Pair]]()

    def thumbnails(self, case: str) -> Scans:
        """The thumbnails of a case."""
        return self.compared[case] if case in self.compared else self.read(case)

    def measure(self, case: str, scans: Scans) -> dict[str, dict[str, float]]:
        """Measure the pairs of a case, and give of each scan how much it resembles those of others, and fits better flipped."""
        numbers = {name: {"flip": 0.0} for name in scans}
        for name, scan in scans.items():
            alike = self._others(case, name, scan)
            if alike and name not in self.unasked:
                numbers[name]["alike"] = resemblance(scan, alike)
        if self.reference not in scans:
            return numbers
        reference = scans[self.reference]
        pairs = self.pairs.setdefault(case, {})
        for name in scans.keys() - {self.reference}:
            scan = scans[name]
            others = [
                pair_similarity(reference, other) for other in self._others(case, name, reference)
            ]
            own = pair_similarity(reference, scan)
            area_mm2 = min(float(np.prod(shown.box_mm[1:])) for shown in (reference, scan))
            pair = _Pair(
                own,
                others,
                *best_flip(reference, scan),
                *class_curve(reference, scan),
                len(scan.own),
                area_mm2,
            )
            pairs[name] = pair
            numbers[name]["flip"] = pair.flip
        numbers[self.reference]["flip"] = max((pair.flip for pair in pairs.values()), default=0.0)
        return numbers

    def _others(self, case: str, name: str, like: Thumbnail) -> list[Thumbnail]:
        """The thumbnails of a scan of other patients on the same lattice, of the cases that all are compared with."""
        return [
            scans[name]
            for other, scans in self.compared.items()
            if self.patients[other] != self.patients[case]
            and name in scans
            and scans[name].own.shape == like.own.shape
        ]

    def findings(self, named: Collection[tuple[str, str]]) -> Iterator[Finding]:
        """The first row that fits each scan that is not named yet.

        Where all of a case's pairs are wrong, the reference scan is named, unless scans are exchanged.
        """
        pairs = {
            case: {name: pair for name, pair in of_case.items() if (case, name) not in named}
            for case, of_case in self.pairs.items()
            if (case, self.reference) not in named
        }
        by_name_and_case = {
            name: {case: some[name] for case, some in pairs.items() if name in some}
            for name in sorted({*chain.from_iterable(pairs.values())})
        }
        found = chain.from_iterable(map(self._of_scan, by_name_and_case, by_name_and_case.values()))
        findings = grouped((one.case, (one, modality)) for one, modality in found)
        for case, several in findings.items():
            exchanged = {modality for _, modality in several} & {one.name for one, _ in several}
            if len(several) == len(pairs[case]) > 1 and not exchanged:
                yield replace(several[0][0], name=self.reference, partner="other scans")
            else:
                yield from (one for one, _ in several)

    def _of_scan(self, name: str, pairs: Mapping[str, _Pair]) -> Iterator[tuple[Finding, str]]:
        """The first row that fits each pair of a scan with the reference scans, and the modality whose contrast it has."""
        least_mm2 = LEAST_AREA * float(np.median([pair.area_mm2 for pair in pairs.values()]))
        pairs = {
            case: pair
            for case, pair in pairs.items()
            if pair.slices > 1 or pair.area_mm2 >= least_mm2
        }
        numbers: ByCase = {
            case: {
                "map": name in self.maps or self.reference in self.maps,
                "slices": pair.slices,
                "flip": pair.flip,
                "how": pair.how,
            }
            for case, pair in pairs.items()
        }
        for measure in self._contrasts, self._foreign, self._exchanged:
            for case, further in measure(name, pairs).items():
                numbers[case] |= further
        for case, of_case in numbers.items():
            if row := first("pair", of_case):
                has_nearest = row.code == "contrast-of-modality"
                finding = Finding(name, case, row, row.brief.format_map(of_case), self.reference)
                yield finding, str(of_case["nearest"]) if has_nearest else ""

    def _exchanged(self, name: str, pairs: Mapping[str, _Pair]) -> ByCase:
        """How much better the reference scan of one case fits the scan of another than both fit their own.

        Each reference scan and each scan count once, in the clearest pair: a slice without much contrast is similar to those
        that were exchanged.
        """
        worst = sorted(pairs, key=lambda case: (pairs[case].ratio, case))[:MOST_SUSPECTS]
        if not any(pairs[case].is_suspect for case in worst):
            return ByCase()
        scans = {case: self.thumbnails(case) for case in worst}
        found = []
        for case, other in product(scans, scans):
            same_patient = self.patients[case] == self.patients[other]
            if same_patient or pairs[case].slices != pairs[other].slices:
                continue
            crossed = pair_similarity(scans[case][self.reference], scans[other][name])
            found.append((crossed / max(pairs[case].own, pairs[other].own, TINY), case, other))
        numbers = ByCase()
        fitting = dict[str, str]()
        for times, case, other in sorted(found, reverse=True):
            if case not in fitting and other not in fitting.values():
                fitting[case] = other
                pair: Measured = {"crossed": times, "whose": f"{other} that of {case}"}
                numbers = {case: pair, other: pair} | numbers
        return numbers

    def _foreign(self, name: str, pairs: Mapping[str, _Pair]) -> ByCase:
        """How similar each pair is beside pairs of two patients, and beside the other pairs of one patient."""
        known = {case: pair for case, pair in pairs.items() if pair.others and pair.slices > 1}
        typical = float(np.median([pair.ratio for pair in known.values()])) if known else 0.0
        suspects = [case for case, pair in known.items() if pair.is_suspect]
        worst = sorted(suspects, key=lambda case: (known[case].ratio, case))[:MOST_SUSPECTS]
        numbers = ByCase()
        for case in worst:
            pair = known[case]
            scan = self.thumbnails(case)[name]
            # the scan beside other references, too: a noisy reference is similar to none
            references = self._others(case, self.reference, scan)
            backwards = [pair_similarity(other, scan) for other in references]
            numbers[case] = {
                "others": len(pair.others),
                "typical": typical,
                "own": pair.own / max(*pair.others, TINY),
                "share": pair.ratio / max(typical, TINY),
                "backwards": pair.own / max(*backwards, TINY),
            }
        return numbers

    def _contrasts(self, name: str, pairs: Mapping[str, _Pair]) -> ByCase:
        """How far the contrast of a scan is from that of its modality in the cohort, and from that of the nearest one."""
        if name == MASK:
            return {}
        curves = grouped(
            (other, pair.curve)
            for by_name in self.pairs.values()
            for other, pair in by_name.items()
            if other != MASK
        )
        means = {other: np.median(curves[other], 0) for other in sorted(curves)}
        apart = {
            case: {other: pair.distance(mean) for other, mean in means.items()}
            for case, pair in pairs.items()
        }
        usual = float(np.median([distances[name] for distances in apart.values()]))
        numbers = ByCase()
        for case, distances in apart.items():
            own = distances[name]
            nearest = min(distances, key=distances.__getitem__)
            numbers[case] = {
                "cases": len(pairs),
                "classes": own,
                "times": own / max(usual, TINY),
                "halves": pairs[case].halves(means[name]),
                "nearest": nearest,
                "nearest_share": distances[nearest] / max(own, TINY),
            }
        return numbers
