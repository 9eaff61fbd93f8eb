"""Whether truths are of the patients of their sources: what a pair shares, against the truths of other patients.

Bodies are laid on each other by the centres of their boxes, so that the truth of another patient is compared as fairly as
one in its place. An image is compared only where a source leaves doubt, and only if those of other cases are good: a bad
model is no reason to doubt a truth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from voxlate.base.arrays import Bool, Float32
from voxlate.base.similarity import class_of, information_of_rows
from voxlate.checks.truth_sketches import SketchedTruth

Classes = NDArray[np.uint8]  # [D, H, W]
Truths = Mapping[str, SketchedTruth]
Ratios = Mapping[str, float]

FEWEST_CELLS = 300  # of a body; fewer share something by chance
SIDE, FLAT_SIDE = 40, 64  # cells of the common grid, of volumes and of pictures
BINS = 16
MOST_OTHERS = 40
PERCENTILES = (1.0, 99.0)  # of the values, the ends of the bins
BODY_SHARE = 0.1  # of the way from the 5th to the 99th percentile
LEAST = 0.03  # normalised mutual information beyond 1 that is not chance

# Thresholds of a ratio: the mutual information of a source (or an image) with its truth, over that with the most similar
# truth of another patient. Volumes: pairs of one patient had 1.05 to 9 (four brains, T1 to T2, FLAIR and T1c; 14
# phantoms, T1 to CT), pairs of two patients 0.1 to 1.1. In single slices, the two often have the same ratio.
FOREIGN = 0.8
NO_BETTER = 1.0
DOUBTFUL = 1.2
USUAL = (
    1.5  # median of the other cases from which pairs of one patient can be told from those of two
)
ALL_FOREIGN = (
    0.5  # median of the other pictures below which most of them have a truth of another patient
)

# Threshold of another ratio: the mutual information of a source with its truth mirrored, over that with its truth as it
# is. Pairs that are not mirrored had 0.1 to 0.9 (20 phantoms, T1 to CT; 7 brains, T1 or FLAIR to T2, FLAIR or T1c).
MIRRORED = 1.2
FEWEST_MIRRORED = 3  # cases
FLIPS = {-1: "left to right", -2: "front to back", -3: "upside down"}  # by axis of [D, H, W]


@dataclass(frozen=True, eq=False)
class _Laid:
    """Classes on the common grid: a scan's body, the truth in its place, and the truth by its own centre."""

    patient: str
    scan: Classes
    in_place: Classes
    centred: Classes


@dataclass(frozen=True)
class _Share:
    """What a scan shares with its own truth, and at most with that of another patient, which is `nearest`."""

    own: float
    most: float
    nearest: str


def find_mirrored(truths: Truths) -> dict[str, str]:
    """The truths that lie mirrored, where most of a cohort fit their sources clearly better after the same flip."""
    gains = dict[str, dict[int, float]]()
    for label, truth in truths.items():
        of_source = _flip_gains(truth, truth.sketch.source)
        of_image = _flip_gains(truth, truth.sketch.image)
        # Where the image fits the truth better as it is, training had the same difference between source and truth.
        if of_source:
            agreed = {
                axis: gain for axis, gain in of_source.items() if of_image.get(axis, 1.0) >= 1
            }
            gains[label] = agreed
    mirrored = dict[str, str]()
    for axis, name in FLIPS.items():
        of_axis = {label: own.get(axis, 0.0) for label, own in gains.items()}
        clear = sum(gain > MIRRORED for gain in of_axis.values())
        if clear < FEWEST_MIRRORED or 2 * clear <= len(gains):
            continue
        for label, gain in of_axis.items():
            if gain > 1:
                found = (
                    f"that it shares {gain:.2f} times as much with its source after a flip: {name}"
                )
                mirrored.setdefault(label, found)
    return mirrored


def _flip_gains(truth: SketchedTruth, scan: Float32) -> dict[int, float]:
    """By axis: what a scan shares with its truth flipped over what it shares with it as it is; {} where that is chance."""
    if not scan.size:
        return {}
    laid = _lay(truth, scan, float(truth.sketch.cell_mm.max()))
    if (laid.scan < BINS).sum() < FEWEST_CELLS:
        return {}
    own = max(_information(laid.scan, [laid.in_place, laid.centred]))
    gains = dict[int, float]()
    for axis in (-1, -2) if truth.sketch.flat_slices else FLIPS:
        truths = [np.flip(classes, axis) for classes in (laid.in_place, laid.centred)]
        flipped = max(_information(laid.scan, truths))
        if max(own, flipped) >= LEAST:
            gains[axis] = flipped / max(own, LEAST / 10)
    return gains


def find_foreign(truths: Truths) -> dict[str, str]:
    """The truths that are of another patient, or lie elsewhere: what was found, to be read after "found"."""
    foreign = dict[str, str]()
    for slices in sorted({truth.sketch.flat_slices for truth in truths.values()}):
        group = {k: truth for k, truth in truths.items() if truth.sketch.flat_slices == slices}
        shares = _shares(group, "source")
        of_source, of_image = _ratios(shares), _ratios(_shares(group, "image"))
        found = dict[str, str]()
        for label, ratio in of_source.items():
            if (_is_foreign_picture if slices else _is_foreign)(label, of_source, of_image):
                nearest = shares[label].nearest
                found[label] = (
                    f"that it shares {ratio:.2f} times as much with its source as the truth of {nearest} does"
                )
        named = [] if slices else [*found]
        for (
            label
        ) in named:  # the list grows in the loop, because an exchange may involve several cases
            share = shares[label]
            # the nearest truth fits the source of this case better than its own source
            if share.nearest not in named and shares[share.nearest].own < share.most:
                named.append(share.nearest)
                found[share.nearest] = (
                    f"that it shares less with its source than with that of {label}, whose truth is another one"
                )
        foreign |= found
    return foreign


def _is_foreign(label: str, of_source: Ratios, of_image: Ratios) -> bool:
    ratio = of_source[label]
    if ratio < FOREIGN:
        return True
    if _usual(label, of_source) < USUAL:
        return False
    by_image = of_image.get(label, USUAL) < DOUBTFUL and _usual(label, of_image) > USUAL
    return ratio < NO_BETTER or (ratio < DOUBTFUL and by_image)


def _is_foreign_picture(label: str, of_source: Ratios, of_image: Ratios) -> bool:
    usual = _usual(label, of_image)
    is_told = usual > USUAL or usual < ALL_FOREIGN
    return of_source[label] < NO_BETTER and of_image.get(label, USUAL) < FOREIGN and is_told


def _usual(label: str, ratios: Ratios) -> float:
    """The median ratio of the other cases; 0 if there are none."""
    others = [ratio for other, ratio in ratios.items() if other != label]
    return median(others) if others else 0.0


def _ratios(shares: Mapping[str, _Share]) -> dict[str, float]:
    """For each scan that shares more than chance, what it shares with its truth over that with another patient's."""
    return {
        label: share.own / max(share.most, LEAST / 10)
        for label, share in shares.items()
        if max(share.own, share.most) >= LEAST
    }


def _shares(truths: Truths, of: Literal["source", "image"]) -> dict[str, _Share]:
    """What each source or image shares with truths, where there are those of several patients."""
    scans = {label: getattr(truth.sketch, of) for label, truth in truths.items()}
    shown = {label: truths[label] for label, scan in scans.items() if scan.size}
    if len({truth.patient for truth in shown.values()}) < 2:
        return {}
    cell_mm = median(float(truth.sketch.cell_mm.max()) for truth in shown.values())
    laid = {label: _lay(truth, scans[label], cell_mm) for label, truth in shown.items()}
    labels = [label for label in laid if (laid[label].scan < BINS).sum() >= FEWEST_CELLS]
    shares = dict[str, _Share]()
    for label in labels:
        own = laid[label]
        others = [other for other in labels if laid[other].patient != own.patient]
        others = others[:: max(1, -(-len(others) // MOST_OTHERS))]  # evenly spread
        if others:
            shared = _information(own.scan, [laid[other].centred for other in others])
            most = max(shared)
            with_own = max(_information(own.scan, [own.in_place, own.centred]))
            shares[label] = _Share(with_own, most, others[shared.index(most)])
    return shares


def _information(scan: Classes, truths: Sequence[Classes]) -> list[float]:
    """Normalised mutual information beyond 1 of a scan's body with each truth."""
    inside = scan < BINS
    several = np.stack([truth[inside] for truth in truths])
    information, _ = information_of_rows(scan[inside], several[:, None], BINS)
    return [float(value) - 1 for value in information[:, 0]]


def _lay(truth: SketchedTruth, scan: Float32, cell_mm: float) -> _Laid:
    """A scan and its truth on the common grid, whose points are around the centre of the scan's body.

    Pictures keep their own slices.
    """
    known = np.isfinite(scan)
    scan = np.where(known, scan, scan[known].min() if known.any() else 0)
    body = _body(scan)
    sketch = truth.sketch
    side = FLAT_SIDE if sketch.flat_slices else SIDE
    line = (np.arange(side) - (side - 1) / 2) * cell_mm

    def lay(values: Float32, around: Bool) -> Float32:
        """Values at the points of the common grid around the centre of a body, or of the grid without one."""
        places = np.argwhere(around)
        middle = (np.array(around.shape) - 1) / 2
        if len(places):
            middle = (places.min(axis=0) + places.max(axis=0)) / 2
        depths, rows, columns = (line / float(mm) + at for mm, at in zip(sketch.cell_mm, middle))
        if sketch.flat_slices:
            depths = np.arange(len(values), dtype=np.float64)
        points = np.stack(np.meshgrid(depths, rows, columns, indexing="ij"))
        return np.asarray(map_coordinates(values, points, order=1, mode="nearest"), np.float32)

    inside = lay(body.astype(np.float32), body) > 0.5
    return _Laid(
        truth.patient,
        np.where(inside, _classes(lay(scan, body), inside), np.uint8(BINS)),
        _classes(lay(sketch.truth, body)),
        _classes(lay(sketch.truth, _body(sketch.truth))),
    )


def _body(values: Float32) -> Bool:
    dark, bright = np.percentile(values, [5, 99])
    return np.asarray(values > dark + BODY_SHARE * (bright - dark))


def _classes(values: Float32, where: Bool | None = None) -> Classes:
    shown = values if where is None else values[where]
    low, high = np.percentile(shown, PERCENTILES) if shown.size else (0.0, 1.0)
    return class_of(values, float(low), float(high), BINS)
