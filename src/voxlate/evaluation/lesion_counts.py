"""Counts of lesions: the connected pieces of a region that an image keeps, shrinks, erases or invents."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from scipy import ndimage

from voxlate.base.array_types import Bool, Float32

Box = tuple[slice, ...]

SMALLEST = 4  # voxels; smaller pieces do not count
# Shares of a piece, or of its contrast: from KEPT on it is kept, below ERASED it is erased.
KEPT = 0.5
ERASED = 0.1
RING = 3  # width in voxels of the in-plane surroundings of a piece
# Contrast in standard deviations of the surroundings, below which the truth does not show a piece.
VISIBLE = 0.5
TOUCHING = np.ones((3, 3, 3), bool)
COUNTS = ("pieces", "kept", "shrunk", "erased", "unseen", "invented")


def count_lesions(
    inside: Bool, truth: Float32, image: Float32, predicted: Bool | None = None
) -> dict[str, float]:
    """Counts of pieces by COUNTS; arrays are [D, H, W]; inside: the region in the truth.

    predicted: the same region in the image, if the image's values define it. A piece is kept if at least half of it is
    predicted and erased below a tenth; predicted pieces that touch none of the truth are invented. Otherwise (label map,
    mask file) the contrast of a piece with its surroundings is compared with that in the truth; pieces that the truth
    does not show are `unseen`, and invented pieces are unknown.
    """
    shares = []
    for box, piece in _pieces(inside):
        if predicted is None:
            shares.append(_share_of_contrast(piece, truth[box], image[box]))
        else:
            shares.append(float(predicted[box][piece].mean()))
    visible = [share for share in shares if share is not None]
    counts = {
        "pieces": len(shares),
        "kept": sum(share >= KEPT for share in visible),
        "shrunk": sum(ERASED <= share < KEPT for share in visible),
        "erased": sum(share < ERASED for share in visible),
        "unseen": len(shares) - len(visible),
    }
    if predicted is not None:
        named, _ = ndimage.label(predicted, TOUCHING)
        sizes = np.bincount(named.ravel())
        sizes[np.unique(named[ndimage.binary_dilation(inside, TOUCHING)])] = 0
        counts["invented"] = int((sizes[1:] >= SMALLEST).sum())
    return {name: float(value) for name, value in counts.items()}


def _pieces(inside: Bool) -> Iterator[tuple[Box, Bool]]:
    """The connected pieces that count, each in a box with its surroundings."""
    named, _ = ndimage.label(inside, TOUCHING)
    for number, held in enumerate(ndimage.find_objects(named), start=1):
        box = tuple(slice(max(0, side.start - RING), side.stop + RING) for side in held)
        piece = named[box] == number
        if piece.sum() >= SMALLEST:
            yield box, piece


def _share_of_contrast(piece: Bool, truth: Float32, image: Float32) -> float | None:
    """The contrast of a piece in the image over that in the truth; None if the truth shows no contrast."""
    plane = np.zeros((3, 3, 3), bool)
    plane[1] = True
    ring = ndimage.binary_dilation(piece, plane, iterations=RING) & ~piece
    if not ring.any():
        return None
    contrast = float(truth[piece].mean() - truth[ring].mean())
    if abs(contrast) < VISIBLE * float(truth[ring].std()) or contrast == 0:
        return None
    return float(image[piece].mean() - image[ring].mean()) / contrast


def lesion_sentence(name: str, rows: Any, patients: Mapping[str, str]) -> str:
    """A sentence with the counts of a region; empty if there is no piece; rows: a DataFrame of scores by case and key."""
    counts = rows.reindex(columns=[f"{name}.{key}" for key in COUNTS], fill_value=0.0)
    counts = counts.set_axis(COUNTS, axis=1).fillna(0.0)
    totals = counts.sum()
    if not totals["pieces"]:
        return ""
    shown = counts["pieces"] - counts["unseen"]
    shown_by = {patients[case] for case in shown.index[shown > 0]}
    fates = ", ".join(f"{totals[key]:.0f} {key}" for key in ("kept", "shrunk", "erased"))
    kept = unseen = invented = ""
    if shown_by:
        share = min(totals["kept"] / shown.sum(), 1.0)
        low, high = _wilson(share, len(shown_by))
        kept = f". Kept of those it shows: {share:.0%} ({low:.0%}-{high:.0%})"
    if totals["unseen"]:
        unseen = f", {totals['unseen']:.0f} that the truth itself does not show"
    if f"{name}.invented" in rows:
        invented = f"; {totals['invented']:.0f} invented where there is none"
    return f"{name}, piece by piece: of {totals['pieces']:.0f} in {len(rows)} cases {fates}{unseen}{invented}{kept}."


def _wilson(share: float, patients: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), with one trial per patient."""
    z = 1.96
    scale = 1 + z**2 / patients
    middle = (share + z**2 / (2 * patients)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / patients + z**2 / (4 * patients**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)
