"""A ledger of lesions: which connected pieces of a region an image keeps, shrinks or erases, and which it invents."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.ndimage as ndimage
from numpy.typing import NDArray

MaskArray = NDArray[np.bool_]
Array = NDArray[np.float32]
Box = tuple[slice, ...]

SMALLEST = 4  # voxels of a piece that counts
# share of a piece, or of its contrast, from which it is kept, and below which it is erased
KEPT, ERASED = 0.5, 0.1
RING = 3  # voxels around a piece, in the plane, that its contrast is measured against
# deviations of the ring's voxels, below which the truth itself does not show a piece
VISIBLE = 0.5
TOUCHING = np.ones((3, 3, 3), bool)
COUNTS = ("pieces", "kept", "shrunk", "erased", "unseen", "invented")


def ledger(inside: MaskArray, truth: Array, image: Array, found: MaskArray | None = None) -> dict[str, float]:
    """Counts of pieces, by COUNTS; arrays [D, H, W]; inside: the region in truth.

    found: the same region in the image, where its own values say it: a piece is kept where half of it is found, erased
    where less than a tenth is, and pieces of `found` that touch none of the truth are invented. Otherwise (a label map,
    a mask file) the contrast of a piece with its surroundings is compared with the truth's, pieces that the truth does
    not show are `unseen`, and nothing can be said of invented ones.
    """
    shares = [
        _share_of_contrast(piece, truth[box], image[box]) if found is None else float(found[box][piece].mean())
        for box, piece in _pieces(inside)
    ]
    seen = [share for share in shares if share is not None]
    counts = {
        "pieces": len(shares),
        "kept": sum(share >= KEPT for share in seen),
        "shrunk": sum(ERASED <= share < KEPT for share in seen),
        "erased": sum(share < ERASED for share in seen),
        "unseen": len(shares) - len(seen),
    }
    if found is not None:
        counts["invented"] = _invented(inside, found)
    return {name: float(value) for name, value in counts.items()}


def _pieces(inside: MaskArray) -> Iterator[tuple[Box, MaskArray]]:
    """The connected pieces that count, each in a box with a ring around it."""
    named, _ = ndimage.label(inside, TOUCHING)
    for number, held in enumerate(ndimage.find_objects(named), start=1):
        box = tuple(slice(max(0, one.start - RING), one.stop + RING) for one in held)
        piece = named[box] == number
        if piece.sum() >= SMALLEST:
            yield box, piece


def _share_of_contrast(piece: MaskArray, truth: Array, image: Array) -> float | None:
    """The contrast of a piece in the image over that in truth; None where the truth shows none."""
    plane = np.zeros((3, 3, 3), bool)
    plane[1] = True
    ring = ndimage.binary_dilation(piece, plane, iterations=RING) & ~piece
    if not ring.any():
        return None
    is_misaligned = float(truth[piece].mean() - truth[ring].mean())
    if abs(is_misaligned) < VISIBLE * float(truth[ring].std()) or is_misaligned == 0:
        return None
    return float(image[piece].mean() - image[ring].mean()) / is_misaligned


def _invented(inside: MaskArray, found: MaskArray) -> int:
    named, count = ndimage.label(found, TOUCHING)
    sizes = ndimage.sum_labels(found, named, range(1, count + 1))
    true = set(np.unique(named[ndimage.binary_dilation(inside, TOUCHING)]))
    return sum(size >= SMALLEST and number not in true for number, size in enumerate(sizes, 1))


def sentence(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The counts of a region over cases, in words; empty where there is no piece."""
    counted = [{key: row.get(f"{name}.{key}") for key in COUNTS} for row in rows]
    totals = {key: sum(one[key] or 0.0 for one in counted) for key in COUNTS}
    if not totals["pieces"]:
        return ""
    counts = ", ".join(f"{totals[key]:.0f} {key}" for key in ("kept", "shrunk", "erased"))
    shown = totals["pieces"] - totals["unseen"]
    kept = ""
    if shown:
        seen = [(one["pieces"] or 0) > (one["unseen"] or 0) for one in counted]
        patients = {row.get("patient") or number for number, row in enumerate(rows) if seen[number]}
        low, high = _interval(totals["kept"] / shown, len(patients))
        kept = f". Kept of those it shows: {totals['kept'] / shown:.0%} ({low:.0%}-{high:.0%})"
    unseen = f", {totals['unseen']:.0f} that the truth itself does not show" if totals["unseen"] else ""
    can_invent = any(one["invented"] is not None for one in counted)
    invented = f"; {totals['invented']:.0f} invented where there is none" if can_invent else ""
    return f"{name}, piece by piece: of {totals['pieces']:.0f} in {len(rows)} cases {counts}{unseen}{invented}{kept}."


def _interval(share: float, patients: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), as of so many trials: pieces of one patient count as one."""
    z = 1.96
    middle = (share + z**2 / (2 * patients)) / (1 + z**2 / patients)
    half = z / (1 + z**2 / patients) * math.sqrt(share * (1 - share) / patients + z**2 / (4 * patients**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)
