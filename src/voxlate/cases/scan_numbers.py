"""Scans whose values or size differ from those of the other cases of a cohort, or from what their unit allows.

In Hounsfield units air is -1000 and soft tissue 0 to 80, whatever the other cases are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import median_abs_deviation

from voxlate.cases.case_header import CaseHeader
from voxlate.cases.intensity_checks import AIR_HU, check_kind
from voxlate.cases.sketch import Sketch, empty_share
from voxlate.images.statistics import Statistics

Oddity = tuple[str, str]  # a code, and numbers for the brackets

FEWEST = 3  # scans of a modality, from which on they are compared with each other
DEVIATIONS = 5.0  # robust standard deviations from the others
TO_SD = 1.4826  # of the median absolute deviation, for a normal law

NARROW_HU = 30.0  # a range of z-scores or shares
GREY = 256
PADDING_HU = -1100.0  # noise and interpolation reach a little below air, padding far below
SHIFTED_HU = 900.0  # of soft tissue; an offset of 1024 was added or left out
CUT = 0.7  # of the largest values of the others; bone is cut off
FULL_HU = 700.0  # reached by the bone of a whole head
AIR_APART_HU = 300.0
NOISE = 6.0  # standard deviations of the border that air reaches
LEVEL = 1.7  # decades; gains of scanners differ by less
EMPTY = 0.2  # of a body; ends of a field of view and cavities differ by less
SIZE = 0.4  # natural logarithm of a body's depth or width


@dataclass(frozen=True)
class ScanNumbers:
    """The numbers of one scan; soft: median of its body; background: lower quartile of the border of its slices.

    empty: share of the body that another scan of the case shows, where this one holds air or one value.
    """

    unit: str
    statistics: Statistics
    soft: float
    background: float
    padding: float | None
    spacing_mm: tuple[float, ...]
    box_mm: tuple[float, float, float]
    empty: float

    @property
    def has_no_spacing(self) -> bool:
        """Whether its voxels have the sides that a file states by default."""
        return all(abs(side - 1) < 1e-6 for side in self.spacing_mm)

    @property
    def level(self) -> float:
        """The decimal logarithm of its brightest values."""
        return float(np.log10(max(abs(self.statistics.all.at(99.9)), 1e-9)))

    @property
    def sides(self) -> tuple[float, ...]:
        """The natural logarithms of the body's depth and width; of a slice none, because it may be of any height."""
        if len(self.statistics.slice_low) == 1 or min(self.box_mm) <= 0:
            return ()
        return float(np.log(self.box_mm[1])), float(np.log(self.box_mm[2]))


def numbers_of(
    header: CaseHeader, name: str, sketch: Sketch | None, other: Sketch | None
) -> ScanNumbers:
    """The numbers of one scan of a case; without a sketch, those of its header alone. other: of another scan."""
    statistics = header.statistics[name]
    spacing_mm = header.origins[name].grid.spacing_mm
    unit = header.units[name]
    if sketch is None:
        low = statistics.all.at(0)
        return ScanNumbers(unit, statistics, 0.0, low, None, spacing_mm, (0.0, 0.0, 0.0), 0.0)
    border = sketch.values[:, [0, -1]]
    background = float(np.percentile(border, 25))
    windowed = unit == "grey"  # bone or fluid has one value there
    air = AIR_HU if unit == "HU" else -np.inf
    return ScanNumbers(
        unit,
        statistics,
        _soft(sketch, border),
        background,
        sketch.padding,
        spacing_mm,
        sketch.box_mm,
        0.0 if other is None or windowed else empty_share(other, sketch, air),
    )


def _soft(sketch: Sketch, border: NDArray[np.float32]) -> float:
    """The median of the body, or of all that differs from the border: the nearer to 0, since bone alone may be found."""
    scanned = sketch.values != np.float32(np.nan if sketch.padding is None else sketch.padding)
    lowest, background = np.percentile(border, [5, 25])
    spread = (
        background - lowest
    ) / 0.97  # standard deviation, from two quantiles of the normal law
    differs = np.abs(sketch.values - background) > NOISE * spread + 10
    medians = [
        float(np.median(sketch.values[where & scanned]))
        for where in (sketch.body, differs)
        if (where & scanned).any()
    ]
    return min(medians, key=abs, default=0.0)


@dataclass(frozen=True)
class Usual:
    """The numbers of all scans of a modality; the few outliers among them do not move a median.

    Each (median, robust standard deviation); levels: of scans that are not z-scored, and of those that are.
    """

    count: int
    signed: int
    without_spacing: int
    spacing_mm: tuple[float, ...]
    high: tuple[float, float]
    background: tuple[float, float]
    levels: dict[bool, tuple[float, float]]
    sides: tuple[tuple[float, float], ...]
    empty: tuple[float, float]


def usual_numbers(scans: Sequence[ScanNumbers]) -> Usual:
    real = [one.spacing_mm for one in scans if not one.has_no_spacing]
    return Usual(
        len(scans),
        sum(one.statistics.signed for one in scans),
        sum(one.has_no_spacing for one in scans),
        tuple(np.median(real or [one.spacing_mm for one in scans], axis=0)),
        _spread([one.statistics.all.at(99.9) for one in scans]),
        _spread([one.background for one in scans]),
        {
            signed: _spread([one.level for one in scans if one.statistics.signed == signed])
            for signed in (False, True)
        },
        tuple(_spread([one.sides[axis] for one in scans if one.sides]) for axis in (0, 1)),
        _spread([one.empty for one in scans]),
    )


def _spread(values: Sequence[float]) -> tuple[float, float]:
    """Median and robust standard deviation; not a number and 0 of fewer than FEWEST."""
    if len(values) < FEWEST:
        return np.nan, 0.0
    median = float(np.median(values))
    return median, TO_SD * float(median_abs_deviation(values))


def _is_apart(value: float, usual: tuple[float, float], least: float) -> bool:
    """Whether a value is further from a median than `least`, and than the spread around it explains."""
    median, deviation = usual
    return abs(value - median) > max(least, DEVIATIONS * deviation)


def oddities(name: str, scan: ScanNumbers, usual: Usual) -> Iterator[Oddity]:
    """The codes that fit a scan, the most telling first, with numbers."""
    everything = scan.statistics.all
    if scan.statistics.blank:
        yield "blank", f"every voxel is {everything.at(0):g}"
        return
    yield from _of_ct(scan, usual) if scan.unit == "HU" else _of_mr(name, scan, usual)
    yield from _of_place(scan, usual)


def _of_ct(scan: ScanNumbers, usual: Usual) -> Iterator[Oddity]:
    everything = scan.statistics.all
    low, high = everything.at(0), everything.at(100)
    span = f"{low:.4g} to {high:.4g}"
    if everything.at(99.9) - everything.at(0.1) < NARROW_HU and high < GREY:
        yield "not-hu", span
    if low >= 0 and high < GREY:
        yield "grey-ct", span
    if SHIFTED_HU < abs(scan.soft) < 2 * SHIFTED_HU:
        yield "shifted-hu", f"soft tissue at {scan.soft:.0f} HU"
    if scan.padding is not None and not PADDING_HU < scan.padding <= 0:
        yield "padding", f"{scan.padding:g} HU"
    if low < PADDING_HU:
        yield "below-air", f"{low:g} HU"
    few = usual.count < FEWEST
    is_cut = high < FULL_HU and low > -SHIFTED_HU if few else high < CUT * usual.high[0]
    if everything.at(99.9) == high and is_cut:
        yield "cut-window", span
    if _is_apart(scan.background, usual.background, AIR_APART_HU):
        yield (
            "other-background",
            f"{scan.background:.4g} HU, the others {usual.background[0]:.4g}",
        )


def _of_mr(name: str, scan: ScanNumbers, usual: Usual) -> Iterator[Oddity]:
    if scan.unit != "grey" and check_kind(name, scan.unit, scan.statistics):
        yield "other-kind", ""
    span = f"{scan.statistics.all.at(0):.4g} to {scan.statistics.all.at(100):.4g}"
    if scan.statistics.signed and 1 < usual.count >= 2 * usual.signed:
        yield "z-scored", span
    if not scan.statistics.signed and 2 * usual.signed > usual.count:
        yield "not-z-scored", span
    if scan.padding is not None:
        yield "padding", f"{scan.padding:g}"
    level = usual.levels[scan.statistics.signed]
    if _is_apart(scan.level, level, LEVEL):
        yield "other-scale-of-case", f"up to {10**scan.level:.3g}, the others {10 ** level[0]:.3g}"


def _of_place(scan: ScanNumbers, usual: Usual) -> Iterator[Oddity]:
    if scan.has_no_spacing and 1 < usual.count > 2 * usual.without_spacing - 1:
        real = "×".join(f"{side:.3g}" for side in reversed(usual.spacing_mm))
        yield "no-spacing", f"the others {real} mm"
    if scan.empty > usual.empty[0] and _is_apart(scan.empty, usual.empty, EMPTY):
        yield "empty-body", f"{scan.empty:.0%} of it, of the others {usual.empty[0]:.0%}"
    if any(_is_apart(side, known, SIZE) for side, known in zip(scan.sides, usual.sides)):
        depth, width = scan.box_mm[1:]
        yield "other-size-of-case", f"{depth:.0f} mm deep, {width:.0f} mm wide"
