"""What the header of a prepared case must agree with: itself, and the arrays that it describes."""

from collections.abc import Mapping

import numpy as np

from voxlate.cases.case_header import CaseHeader
from voxlate.images.grid import Grid, check_affine
from voxlate.images.mask import bounding_box
from voxlate.images.misalignment import Misalignment
from voxlate.images.statistics import PERCENTILES, Distribution, Statistics
from voxlate.system.errors import BadInput
from voxlate.system.records import LARGEST, Record, Shape, check_values, close

MOST_VOXELS = 1 << 40  # of a scan: a product of three lengths may not overflow


def check_header(record: Record, header: CaseHeader) -> None:
    """Raise BadInput unless what a header says agrees with itself."""
    names = header.units.keys()
    depth = header.shape[0]
    plane = header.shape[1] * header.shape[2]
    record.check(bool(names), "no modality")
    record.check(depth * plane <= MOST_VOXELS, f"a scan of {depth * plane} voxels")
    for what, others in (("origins", header.origins), ("statistics", header.statistics)):
        record.check(
            others.keys() == names, f"{what} of {', '.join(others)} for {', '.join(names)}"
        )
    for what, known in (
        ("registered", header.registered),
        ("misaligned", header.misaligned),
        ("signatures", header.signatures),
    ):
        record.check(known.keys() <= names, f"'{what}' of scans that it has not")
    record.check(len(set(header.labels)) == len(header.labels), "a label map twice")
    _check_grid(record, header)
    for origin in header.origins.values():
        _check_affine(record, np.array(origin.affine))
    record.check(
        len(header.mask_area) == depth and max(header.mask_area) <= plane, "a mask of another size"
    )
    box = zip(header.mask_box, header.shape)
    sound = len(header.mask_box) == 3 and all(first < end <= length for (first, end), length in box)
    record.check(sound, f"the box {header.mask_box} of its mask")
    volume = sum(header.mask_area) * float(np.prod(header.spacing_mm)) / 1000
    record.check(
        close(volume, header.mask_ml),
        f"a mask of {header.mask_ml:g} ml whose voxels are {volume:g} ml",
    )
    for name, one in header.statistics.items():
        _check_statistics(record, f"the statistics of {name}", one, depth)
    for name, apart in header.misaligned.items():
        record.check(_is_measured_or_not(apart), f"an impossible misalignment of {name}")


def check_voxels(
    record: Record,
    header: CaseHeader,
    arrays: Mapping[str, np.ndarray],
    mask: str,
) -> None:
    """Raise BadInput unless a case's voxels are those that its header describes."""
    by_slice = dict[str, tuple[np.ndarray, np.ndarray]]()
    for name, values in arrays.items():
        by_slice[name] = (values.min(axis=(1, 2)), values.max(axis=(1, 2)))
        limits = Shape(values.shape, low=-LARGEST, high=LARGEST)
        check_values(record, name, np.stack(by_slice[name]), limits)
    for name, statistics in header.statistics.items():
        ends = tuple(zip(by_slice[name], (statistics.slice_low, statistics.slice_high)))
        record.check(
            all(np.allclose(*pair, rtol=1e-5) for pair in ends),
            f"statistics of other voxels ({name})",
        )
    bits = arrays[mask]
    record.check(int(bits.max()) < 1 << len(header.units), "a mask of more scans than it has")
    inside = bits != 0
    record.check(inside.sum(axis=(1, 2)).tolist() == header.mask_area, "the area of another mask")
    record.check(
        bounding_box(inside) == [tuple(one) for one in header.mask_box], "the box of another mask"
    )


def _check_grid(record: Record, header: CaseHeader) -> None:
    affine = np.array(header.affine)
    _check_affine(record, affine)
    pairs = zip(Grid(header.shape, affine).spacing_mm, header.spacing_mm)
    record.check(all(close(one, other) for one, other in pairs), "an affine of another spacing")


def _check_affine(record: Record, affine: np.ndarray) -> None:
    record.check(affine[3].tolist() == [0, 0, 0, 1], "an affine that is none")
    try:
        check_affine(affine, record.path)
    except BadInput as error:
        raise record.wrong("an affine that gives voxels no place of their own") from error


def _check_statistics(record: Record, what: str, statistics: Statistics, depth: int) -> None:
    for part in (statistics.all, statistics.foreground):
        _check_distribution(record, what, part)
    record.check(
        len(statistics.slice_low) == len(statistics.slice_high) == depth,
        f"{what} of another number of slices",
    )
    ordered = all(low <= high for low, high in zip(statistics.slice_low, statistics.slice_high))
    record.check(ordered, f"{what}, with slices that end before they begin")
    ends = (
        (min(statistics.slice_low), statistics.all.percentiles[0]),
        (max(statistics.slice_high), statistics.all.percentiles[-1]),
    )
    record.check(all(close(*pair) for pair in ends), f"{what}, with slices of another range")
    low = statistics.all.percentiles[0]
    high = statistics.all.percentiles[-1]
    first = statistics.foreground.percentiles[0]
    last = statistics.foreground.percentiles[-1]
    inside = (first >= low or close(first, low)) and (last <= high or close(last, high))
    record.check(inside, f"{what}, with a foreground of another range")


def _check_distribution(record: Record, what: str, values: Distribution) -> None:
    record.check(
        len(values.percentiles) == len(PERCENTILES),
        f"{what}, with {len(values.percentiles)} percentiles",
    )
    pairs = zip(values.percentiles, values.percentiles[1:])
    record.check(
        all(low <= high or close(low, high) for low, high in pairs),
        f"{what}, with percentiles that fall",
    )
    low, high = values.percentiles[0], values.percentiles[-1]
    within = low <= values.mean <= high or close(values.mean, low) or close(values.mean, high)
    record.check(within, f"{what}, with a mean beyond its range")
    spread = high - low
    record.check(
        values.sd <= spread or close(values.sd, spread),
        f"{what}, with a deviation wider than its range",
    )


def _is_measured_or_not(apart: Misalignment) -> bool:
    """Whether all four numbers are there, or none, and the 95th percentile is not below the median."""
    four = (apart.median_mm, apart.p95_mm, apart.translation_mm, apart.rotation_deg)
    if apart.median_mm is None or apart.p95_mm is None:
        return all(one is None for one in four)
    return None not in four and apart.median_mm <= apart.p95_mm
