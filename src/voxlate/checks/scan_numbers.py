"""Scans whose values or size differ from those of the other cases of a cohort, or from what their unit allows.

In Hounsfield units air is -1000 and soft tissue 0 to 80, whatever the other cases are.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from voxlate.base.arrays import Float32
from voxlate.base.groups import grouped
from voxlate.checks.intensity_checks import AIR_HU, check_kind
from voxlate.checks.sketch import Sketch, empty_share
from voxlate.scans.cases.case_header import CaseHeader
from voxlate.scans.images.statistics import Statistics
from voxlate.scans.images.units import TISSUE_MAPS

Oddity = tuple[str, str]  # a code, and numbers for the brackets
Usual = Mapping[str, tuple[float, float]]  # by name: the median, and a robust standard deviation

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
    """The numbers of one scan; soft: median of its body; compared: the numbers that are compared with other scans'.

    Of these, level is the decimal logarithm of the brightest values, of scans that are z-scored under another name;
    background is the lower quartile of the border of its slices; empty is the share of the body that another scan of
    the case shows, where this one holds air or one value; unspaced is 1 where its voxels have the sides that a file
    states by default, and only others have z_mm, y_mm and x_mm; depth and width are natural logarithms of the body's
    sides, which a slice does not have, because it may be of any height.
    """

    unit: str
    statistics: Statistics
    soft: float
    padding: float | None
    sides_mm: Sequence[float]
    compared: Mapping[str, float]

    @property
    def level(self) -> str:
        """The name under which its level is compared."""
        return "signed level" if self.statistics.is_signed else "level"

    def is_apart(self, name: str, usual: Usual, least: float) -> bool:
        """Whether a number is further from its median than `least`, and than the spread around it explains."""
        if name not in self.compared:
            return False
        median, deviation = usual[name]
        return abs(self.compared[name] - median) > max(least, DEVIATIONS * deviation)


def numbers_of(
    header: CaseHeader, name: str, sketch: Sketch | None, other: Sketch | None
) -> ScanNumbers:
    """The numbers of one scan of a case; without a sketch, those of its header alone. other: of another scan."""
    statistics, unit = header.statistics[name], header.units[name]
    bright = statistics.all.at(99.9)
    spacing_mm = header.origins[name].grid.spacing_mm
    unspaced = all(abs(side - 1) < 1e-6 for side in spacing_mm)
    compared = {"high": bright, "signed": float(statistics.is_signed), "unspaced": float(unspaced)}
    if not unspaced:
        compared |= zip(("z_mm", "y_mm", "x_mm"), spacing_mm)
    compared |= {"background": statistics.all.at(0), "empty": 0.0}
    soft, padding, sides_mm = 0.0, None, (0.0, 0.0, 0.0)
    if sketch is not None:
        border = sketch.values[:, [0, -1]]
        soft, padding, sides_mm = _soft(sketch, border), sketch.padding, sketch.box_mm
        compared["background"] = float(np.percentile(border, 25))
        if other is not None and unit != "grey":  # bone or fluid has one grey value there
            compared["empty"] = empty_share(other, sketch, AIR_HU if unit == "HU" else -np.inf)
    if header.shape[0] > 1 and min(sides_mm) > 0:
        compared |= {"depth": float(np.log(sides_mm[1])), "width": float(np.log(sides_mm[2]))}
    scan = ScanNumbers(unit, statistics, soft, padding, sides_mm, compared)
    compared[scan.level] = float(np.log10(max(abs(bright), 1e-9)))
    return scan


def _soft(sketch: Sketch, border: Float32) -> float:
    """The median of the body, or of all that differs from the border: the nearer to 0, since bone alone may be found."""
    scanned = sketch.values != np.float32(np.nan if sketch.padding is None else sketch.padding)
    lowest, background = np.percentile(border, [5, 25])
    # a standard deviation, from two quantiles of the normal law
    spread = (background - lowest) / 0.97
    differs = np.abs(sketch.values - background) > NOISE * spread + 10
    parts = [sketch.values[where & scanned] for where in (sketch.body, differs)]
    return min((float(np.median(part)) for part in parts if part.size), key=abs, default=0.0)


def usual_numbers(scans: Sequence[ScanNumbers]) -> Usual:
    """The numbers of all scans of a modality; the few outliers among them do not move a median.

    The deviation of fewer than FEWEST numbers is infinite.
    """
    numbers = grouped(pair for scan in scans for pair in scan.compared.items())
    usual = dict[str, tuple[float, float]]()
    for name, values in numbers.items():
        median = float(np.median(values))
        away = float(np.median(np.abs(np.array(values) - median)))
        usual[name] = median, TO_SD * away if len(values) >= FEWEST else np.inf
    return usual


def oddities(name: str, scan: ScanNumbers, usual: Usual) -> Iterator[Oddity]:
    """The codes that fit a scan, the most telling first, with numbers."""
    low = scan.statistics.all.at(0)
    if scan.statistics.blank:
        yield "blank", f"every voxel is {low:g}"
        return
    yield from _of_ct(scan, usual) if scan.unit == "HU" else _of_mr(name, scan, usual)
    if scan.compared["unspaced"] and usual["unspaced"][0] <= 0.5:
        real = "×".join(f"{usual[side][0]:.3g}" for side in ("x_mm", "y_mm", "z_mm"))
        yield "no-spacing", f"the others {real} mm"
    median, _ = usual["empty"]
    if scan.compared["empty"] > median and scan.is_apart("empty", usual, EMPTY):
        yield "empty-body", f"{scan.compared['empty']:.0%} of it, of the others {median:.0%}"
    if scan.is_apart("depth", usual, SIZE) or scan.is_apart("width", usual, SIZE):
        _, depth, width = scan.sides_mm
        yield "other-size-of-case", f"{depth:.0f} mm deep, {width:.0f} mm wide"


def _of_ct(scan: ScanNumbers, usual: Usual) -> Iterator[Oddity]:
    everything = scan.statistics.all
    low, bright, high = (everything.at(percentile) for percentile in (0, 99.9, 100))
    span = f"{low:.4g} to {high:.4g}"
    if bright - everything.at(0.1) < NARROW_HU and high < GREY:
        yield "not-hu", span
    if low >= 0 and high < GREY:
        yield "grey-ct", span
    if SHIFTED_HU < abs(scan.soft) < 2 * SHIFTED_HU:
        yield "shifted-hu", f"soft tissue at {scan.soft:.0f} HU"
    if scan.padding is not None and not PADDING_HU < scan.padding <= 0:
        yield "padding", f"{scan.padding:g} HU"
    if low < PADDING_HU:
        yield "below-air", f"{low:g} HU"
    others, deviation = usual["high"]
    is_cut = high < CUT * others
    if np.isinf(deviation):
        is_cut = high < FULL_HU and low > -SHIFTED_HU
    if bright == high and is_cut:
        yield "cut-window", span
    if scan.is_apart("background", usual, AIR_APART_HU):
        background, others = scan.compared["background"], usual["background"][0]
        yield "other-background", f"{background:.4g} HU, the others {others:.4g}"


def _of_mr(name: str, scan: ScanNumbers, usual: Usual) -> Iterator[Oddity]:
    no_image = scan.unit == "grey" or name in TISSUE_MAPS
    if not no_image and check_kind(name, scan.unit, scan.statistics):
        yield "other-kind", ""
    span = f"{scan.statistics.all.at(0):.4g} to {scan.statistics.all.at(100):.4g}"
    most_are_signed = usual["signed"][0] > 0.5
    if scan.statistics.is_signed and not most_are_signed:
        yield "z-scored", span
    if not scan.statistics.is_signed and most_are_signed:
        yield "not-z-scored", span
    if scan.padding is not None:
        yield "padding", f"{scan.padding:g}"
    if scan.is_apart(scan.level, usual, LEVEL):
        own, others = 10 ** scan.compared[scan.level], 10 ** usual[scan.level][0]
        yield "other-scale-of-case", f"up to {own:.3g}, the others {others:.3g}"
