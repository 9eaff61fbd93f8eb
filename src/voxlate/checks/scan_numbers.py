"""The numbers of a scan that are compared with those of other cases; their limits are in limits.toml."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from voxlate.base.groups import grouped
from voxlate.base.messages import codes
from voxlate.checks.check_table import Row, first
from voxlate.checks.intensity_checks import AIR_BELOW_HU, check_kind, tissue_numbers
from voxlate.checks.thumbnail import Thumbnail, empty_share
from voxlate.scans.images.mask import Spacing
from voxlate.scans.images.units import MAY_BE_ZERO, SHOW_ANATOMY, TISSUE_MAPS
from voxlate.scans.images.volume_statistics import Statistics

ScanNumbers = Mapping[str, float]
Typical = Mapping[str, tuple[float, float]]  # by name: the median, and a robust standard deviation

FEWEST_SCANS = 3  # scans of a modality, from which on they are compared with each other
TO_SD = 1.4826  # of the median absolute deviation, for a normal law
NOISE = 6.0  # standard deviations of the border that air reaches
TINY = 1e-9
VOXEL_SIDES = ("z_mm", "y_mm", "x_mm")  # of voxels


@dataclass(frozen=True)
class Finding:
    """What is wrong with a scan of a case: a row, numbers in brackets, and the scan that it is compared with."""

    name: str
    case: str
    row: Row
    numbers: str
    partner: str = ""

    @property
    def code(self) -> str:
        """The code of its row."""
        return self.row.code

    def clause(self, partner: str) -> str:
        """What its code means, without "a scan"; partner: the scan that it is compared with."""
        _, _, what = codes()[self.code].meaning.split(" ", 2)
        return what.format(partner=partner)


def numbers_of(
    name: str,
    unit: str,
    statistics: Statistics,
    spacing_mm: Spacing,
    thumbnail: Thumbnail | None,
    other: Thumbnail | None,
) -> ScanNumbers:
    """The numbers of a scan by name; without a thumbnail, those of its values alone. other: another scan of the case.

    range: of other values than those of maps that may be zero; level is the decimal logarithm of the brightest values,
    signed_level that of z-scored scans; background is the lower quartile of the border of slices; empty is the share of
    the body that the other scan shows, where this one holds air or one value; unspaced is 1 where voxels have the sides that a file states by default, and only others have z_mm, y_mm
    and x_mm; depth and width are natural logarithms of the body's sides, which a slice does not have.
    """
    everything = statistics.all
    low, high, bright = (everything.at(percentile) for percentile in (0, 100, 99.9))
    level = max(abs(bright), TINY)
    signed = statistics.is_signed
    is_ct = unit == "HU"
    no_image = unit == "grey" or name in TISSUE_MAPS
    numbers = {
        "ct": is_ct,
        "low": low,
        "high": high,
        "bright": bright,
        "width": bright - everything.at(0.1),
        "clipped": bright == high,
        "values": len({*everything.percentiles}),
        "signed": signed,
        "signed_level" if signed else "level": float(np.log10(level)),
        "other_kind": not no_image and bool(check_kind(name, unit, statistics)),
        "unspaced": all(abs(side - 1) < 1e-6 for side in spacing_mm),
        "background": low,
        "empty": 0.0,
    }
    if name not in MAY_BE_ZERO:
        numbers["range"] = high - low
    if not numbers["unspaced"]:
        numbers |= zip(VOXEL_SIDES, spacing_mm)
    if thumbnail is None:
        return numbers
    numbers |= tissue_numbers(thumbnail.values) | soft_and_background(thumbnail)
    if not signed:
        numbers["floor"] = numbers["background"] / level
    if thumbnail.padding is not None:
        numbers["padding"] = thumbnail.padding
    if other is not None and unit != "grey":  # bone or fluid has one grey value there
        numbers["empty"] = empty_share(other, thumbnail, AIR_BELOW_HU if is_ct else -np.inf)
    _, depth_mm, width_mm = thumbnail.box_mm
    if unit in SHOW_ANATOMY and len(thumbnail.values) > 1 and min(thumbnail.box_mm) > 0:
        numbers |= {
            "depth_mm": depth_mm,
            "width_mm": width_mm,
            "depth": float(np.log(depth_mm)),
            "across": float(np.log(width_mm)),
        }
    return numbers


def soft_and_background(thumbnail: Thumbnail) -> dict[str, float]:
    """The lower quartile of the border; the median of the body, or of all that differs from the border.

    The nearer to 0 of both medians, since bone alone may be found.
    """
    padding = np.float32(np.nan if thumbnail.padding is None else thumbnail.padding)
    scanned = thumbnail.values != padding
    lowest, background = np.percentile(thumbnail.values[:, [0, -1]], [5, 25])
    # a standard deviation, from two quantiles of the normal law
    spread = (background - lowest) / 0.97
    differs = np.abs(thumbnail.values - background) > NOISE * spread + 10
    parts = [thumbnail.values[where & scanned] for where in (thumbnail.body, differs)]
    soft = min((float(np.median(part)) for part in parts if part.size), key=abs, default=0.0)
    return {"soft": soft, "background": float(background)}


def usual_numbers(scans: Sequence[ScanNumbers]) -> Typical:
    """The median and the deviation of each number over all scans of a modality; the few outliers move no median.

    The deviation of fewer than FEWEST_SCANS numbers is infinite.
    """
    by_name = grouped(pair for scan in scans for pair in scan.items())
    usual = {}
    for name, values in by_name.items():
        median = float(np.median(values))
        with np.errstate(invalid="ignore"):  # a number may be infinite
            away = float(np.median(np.abs(np.array(values) - median)))
        usual[name] = median, TO_SD * away if len(values) >= FEWEST_SCANS else np.inf
    return usual


def odd_scans(numbers: Mapping[str, Mapping[str, ScanNumbers]]) -> Iterator[Finding]:
    """The first row that fits each scan beside the others of its name; numbers: by name and case."""
    for name, of_name in numbers.items():
        # a majority whose own values are at fault would put the blame on the others
        usual = usual_numbers([scan for scan in of_name.values() if not _is_faulty(scan)])
        for case, scan in of_name.items():
            compared = _beside(scan, usual) | {"cases": len(of_name)}
            if row := first("of_cohort", compared):
                yield Finding(name, case, row, row.brief.format_map(compared))


def _is_faulty(scan: ScanNumbers) -> bool:
    """Whether a scan's own numbers show a fault, whatever the others have."""
    row = first("of_cohort", scan)
    return row is not None and bool(row.fault)


def _beside(scan: ScanNumbers, usual: Typical) -> dict[str, float]:
    """The numbers of a scan, and of each the usual one and how far the scan is from it."""
    numbers = {**scan}
    for name, (median, deviation) in usual.items():
        more = scan.get(name, np.nan) - median
        apart = abs(more)
        numbers |= {
            f"{name}_usual": median,
            f"{name}_more": more,
            f"{name}_apart": apart,
            f"{name}_deviations": apart / deviation if deviation else np.inf,
        }
    numbers["high_share"] = scan.get("high", 0.0) / max(numbers.get("bright_usual", 0.0), TINY)
    return numbers
