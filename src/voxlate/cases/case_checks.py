"""What the header of a prepared case must agree with: itself, and the arrays that it describes."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from voxlate.cases.case_header import CaseHeader
from voxlate.images.grid import check_affine
from voxlate.images.statistics import PERCENTILES
from voxlate.system.errors import BadInput
from voxlate.system.records import Record, Shape, check_values, close

MOST_VOXELS = 1 << 40  # of a scan: a product of three lengths may not overflow


def check_header(record: Record, header: CaseHeader) -> None:
    """Raise BadInput unless the parts of a header describe the same scans, and readers can compute with them."""
    names = header.units.keys()
    depth, height, width = header.shape
    estimates = header.registered.keys() | header.misaligned.keys() | header.signatures.keys()
    ends = zip(header.mask_box, header.shape)
    for is_sound, found in (
        (bool(names), "no modality"),
        (depth * height * width <= MOST_VOXELS, f"a scan of {header.shape} voxels"),
        (header.origins.keys() == names, "origins of other modalities"),
        (header.statistics.keys() == names, "statistics of other modalities"),
        (estimates <= names, "alignments or signatures of other modalities"),
        (len(set(header.labels)) == len(header.labels), "a label map twice"),
        (len(header.mask_area) == depth, "a mask of another number of slices"),
        (max(header.mask_area, default=0) <= height * width, "a mask of another size"),
        (all(first < end <= length for (first, end), length in ends), "another box of its mask"),
    ):
        record.check(is_sound, found)
    for affine in (header.affine, *(origin.affine for origin in header.origins.values())):
        record.check(affine[3] == [0, 0, 0, 1], "an affine that is none")
        try:
            check_affine(np.array(affine), record.path)
        except BadInput as error:
            raise record.wrong("an affine that gives voxels no place of their own") from error
    for name, statistics in header.statistics.items():
        lengths = {len(statistics.slice_low), len(statistics.slice_high)}
        record.check(lengths == {depth}, f"the slices of another {name}")
        for part in (statistics.all, statistics.foreground):
            has_all = len(part.percentiles) == len(PERCENTILES)
            is_rising = all(
                low <= high or close(low, high) for low, high in pairwise(part.percentiles)
            )
            record.check(has_all and is_rising, f"percentiles of {name} that are none")
    for name, apart in header.misaligned.items():
        numbers = (apart.median_mm, apart.p95_mm, apart.translation_mm, apart.rotation_deg)
        record.check(
            numbers.count(None) in (0, len(numbers)), f"a part of the misalignment of {name}"
        )


def check_voxels(
    record: Record, header: CaseHeader, arrays: Mapping[str, np.ndarray], mask: str
) -> None:
    """Raise BadInput unless all voxels are finite, and the mask is one of the header's modalities."""
    for name, values in arrays.items():
        check_values(record, name, values, Shape(values.shape))
    highest = int(arrays[mask].max())
    record.check(highest < 1 << len(header.units), "a mask of more scans than it has")
