"""Whether truths are of the patients of their sources: what a pair shares, against the truths of other patients.

Bodies are laid on each other by the centres of their boxes, so that the truth of another patient is compared as fairly as
one in its place. An image is compared only where a source leaves doubt, and only if those of other cases are good: a bad
model is no reason to doubt a truth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from voxlate.images.similarity import class_of, information_of_rows

Cells = NDArray[np.float32]
Ratios = Mapping[str, float]

FEWEST_SLICES = 8  # below, cases are pictures or a few slices
FEWEST_CELLS = 300  # of a body; fewer share something by chance
SIDE, FLAT_SIDE = 40, 64  # cells of the common grid, of volumes and of pictures
BINS = 16
MOST_OTHERS = 40
PERCENTILES = (1.0, 99.0)  # of the values, the ends of the bins
BODY_SHARE = 0.1  # of the way from the 5th to the 99th percentile
LEAST = 0.03  # normalised mutual information beyond 1 that is not chance

# Ratios of what a source (or an image) shares with its truth to what it shares with the most similar truth of another
# patient. Volumes: sources of right pairs had 1.05 to 9 (four brains, T1 to T2, FLAIR and T1c; 14 phantoms, T1 to CT),
# those of two patients 0.1 to 1.1. Pictures: one slice of two heads is often as similar as the pair of one head.
FOREIGN = 0.8
NO_BETTER = 1.0
DOUBTFUL = 1.2
USUAL = 1.5  # of the other cases, where the pair of one patient is told from that of two
ALL_FOREIGN = 0.5  # of the other pictures, where most have a truth of another patient

# Of what a source shares with its truth flipped, to what it shares with it as it is: right pairs had 0.1 to 0.9
# (20 phantoms, T1 to CT; 7 brains, T1 or FLAIR to T2, FLAIR or T1c).
MIRRORED = 1.2
FEWEST_MIRRORED = 3  # cases
FLIPS = {-1: "left to right", -2: "front to back", -3: "upside down"}  # by axis of [D, H, W]


@dataclass(frozen=True, eq=False)
class Likeness:
    """A truth, its source and its image in cells [D, H, W] of one grid, with the patient.

    source, image: NaN outside their field of view, empty where there are none.
    """

    patient: str
    truth: Cells
    source: Cells
    image: Cells
    cell_mm: Cells

    @property
    def flat_slices(self) -> int:
        """The number of slices of a picture; 0 for volumes. Pictures are compared with those of as many slices."""
        slices = self.truth.shape[0]
        return slices if slices < FEWEST_SLICES else 0


@dataclass(frozen=True, eq=False)
class _Laid:
    """Classes [N] on the common grid: a scan's body, the truth in its place, and the truth by its own centre."""

    patient: str
    scan: NDArray[np.uint8]
    in_place: NDArray[np.uint8]
    centred: NDArray[np.uint8]


def mirrored_truths(pairs: Mapping[str, Likeness]) -> dict[str, str]:
    """The truths that lie mirrored, where most of a cohort fit their sources clearly better after the same flip."""
    gains = dict[str, dict[int, float]]()
    for label, one in pairs.items():
        of_source = _flip_gains(one, one.source)
        of_image = _flip_gains(one, one.image)
        # An image that fits the truth as it is shows that model and truth agree: the source lies otherwise in all cases.
        agreed = {axis: gain for axis, gain in of_source.items() if of_image.get(axis, 1.0) >= 1}
        if of_source:
            gains[label] = agreed
    mirrored = dict[str, str]()
    for axis, name in FLIPS.items():
        clear = [label for label, own in gains.items() if own.get(axis, 0.0) > MIRRORED]
        if len(clear) < FEWEST_MIRRORED or 2 * len(clear) <= len(gains):
            continue
        for label, own in gains.items():
            if own.get(axis, 0.0) > 1:
                mirrored.setdefault(
                    label,
                    f"that it shares {own[axis]:.2f} times as much with its source after a flip: {name}",
                )
    return mirrored


def _flip_gains(pair: Likeness, scan: Cells) -> dict[int, float]:
    """By axis: what a scan shares with its truth flipped over what it shares with it as it is; {} where that is chance."""
    if not scan.size:
        return {}
    laid = _laid(pair, scan, float(pair.cell_mm.max()))
    if (laid.scan < BINS).sum() < FEWEST_CELLS:
        return {}
    side = FLAT_SIDE if pair.flat_slices else SIDE
    truths = [one.reshape(-1, side, side) for one in (laid.in_place, laid.centred)]
    own = max(_shared(laid.scan, [one.ravel() for one in truths]))
    gains = dict[int, float]()
    for axis in (-1, -2) if pair.flat_slices else FLIPS:
        flipped = max(_shared(laid.scan, [np.flip(one, axis).ravel() for one in truths]))
        if max(own, flipped) >= LEAST:
            gains[axis] = flipped / max(own, LEAST / 10)
    return gains


def foreign_truths(pairs: Mapping[str, Likeness]) -> dict[str, str]:
    """The truths that are of another patient, or lie elsewhere: what was found, to be read after "found"."""
    foreign = dict[str, str]()
    for slices in sorted({one.flat_slices for one in pairs.values()}):
        flat = slices > 0
        alike = {label: one for label, one in pairs.items() if one.flat_slices == slices}
        shares = _shares({label: (one, one.source) for label, one in alike.items()})
        of_source = _ratios(shares)
        of_image = _ratios(_shares({label: (one, one.image) for label, one in alike.items()}))
        is_foreign = _is_foreign_picture if flat else _is_foreign
        found = {
            label: f"that it shares {ratio:.2f} times as much with its source as the truth of {shares[label].nearest} does"
            for label, ratio in of_source.items()
            if is_foreign(label, of_source, of_image)
        }
        foreign |= found if flat else found | _exchanged(list(found), shares)
    return foreign


def _exchanged(foreign: Sequence[str], shares: Mapping[str, "_Share"]) -> dict[str, str]:
    """The truths that fit the source of a case with a foreign truth better than their own: the others of an exchange."""
    found = dict[str, str]()
    named = [*foreign]
    for label in named:  # which grows: an exchange may go round several cases
        owner = shares[label]
        if owner.nearest not in named and shares[owner.nearest].own < owner.most:
            named.append(owner.nearest)
            found[owner.nearest] = (
                f"that it shares less with its source than with that of {label}, whose truth is another one"
            )
    return found


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


@dataclass(frozen=True)
class _Share:
    """What a scan shares with its own truth, and at most with that of another patient, which is `nearest`."""

    own: float
    most: float
    nearest: str


def _ratios(shares: Mapping[str, _Share]) -> dict[str, float]:
    """For each scan that shares more than chance, what it shares with its truth over that with another patient's."""
    return {
        label: share.own / max(share.most, LEAST / 10)
        for label, share in shares.items()
        if max(share.own, share.most) >= LEAST
    }


def _shares(pairs: Mapping[str, tuple[Likeness, Cells]]) -> dict[str, _Share]:
    """What each scan shares with truths, where there are those of several patients."""
    shown = {label: pair for label, pair in pairs.items() if pair[1].size}
    if len({one.patient for one, _ in shown.values()}) < 2:
        return {}
    cell_mm = median(float(one.cell_mm.max()) for one, _ in shown.values())
    laid = {label: _laid(one, scan, cell_mm) for label, (one, scan) in shown.items()}
    labels = [label for label, one in laid.items() if (one.scan < BINS).sum() >= FEWEST_CELLS]
    shares = dict[str, _Share]()
    for label in labels:
        others = _others(label, labels, laid)
        if not others:
            continue
        one = laid[label]
        own = max(_shared(one.scan, [one.in_place, one.centred]))
        shared = _shared(one.scan, [laid[other].centred for other in others])
        most = max(shared)
        shares[label] = _Share(own, most, others[shared.index(most)])
    return shares


def _others(label: str, labels: Sequence[str], laid: Mapping[str, _Laid]) -> list[str]:
    """At most MOST_OTHERS cases of other patients, evenly spread."""
    others = [one for one in labels if laid[one].patient != laid[label].patient]
    return others[:: max(1, -(-len(others) // MOST_OTHERS))]


def _shared(scan: NDArray[np.uint8], truths: Sequence[NDArray[np.uint8]]) -> list[float]:
    """Normalised mutual information beyond 1 of a scan's body with each truth."""
    inside = scan < BINS
    several = np.stack([truth[inside] for truth in truths])
    information, _ = information_of_rows(scan[inside], several[:, None], BINS)
    return [float(value) - 1 for value in information[:, 0]]


def _laid(pair: Likeness, scan: Cells, cell_mm: float) -> _Laid:
    """A scan and its truth on the common grid."""
    known = np.isfinite(scan)
    scan = np.where(known, scan, scan[known].min() if known.any() else 0)
    body = _body(scan)
    centre = _centre(body)

    def laid(values: Cells, middle: NDArray[np.float64]) -> Cells:
        return _on_common_grid(values, pair.cell_mm, middle, cell_mm, pair.flat_slices > 0)

    inside = laid(body.astype(np.float32), centre) > 0.5
    return _Laid(
        pair.patient,
        np.where(inside, _classes(laid(scan, centre), inside), np.uint8(BINS)),
        _classes(laid(pair.truth, centre)),
        _classes(laid(pair.truth, _centre(_body(pair.truth)))),
    )


def _body(values: Cells) -> NDArray[np.bool_]:
    dark, bright = np.percentile(values, [5, 99])
    return np.asarray(values > dark + BODY_SHARE * (bright - dark))


def _centre(body: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The centre of the box around a body, in cells; of the grid if there is none."""
    places = np.argwhere(body)
    if not len(places):
        return (np.array(body.shape) - 1) / 2
    return np.asarray((places.min(axis=0) + places.max(axis=0)) / 2)


def _on_common_grid(
    values: Cells,
    own_mm: Cells,
    centre: NDArray[np.float64],
    cell_mm: float,
    flat: bool,
) -> Cells:
    """Values at the points of the common grid around a centre, in one row; a flat grid has the pictures' own slices."""
    side = FLAT_SIDE if flat else SIDE
    line = np.arange(side) - (side - 1) / 2
    steps = [line * cell_mm / float(mm) + middle for mm, middle in zip(own_mm, centre)]
    depths = np.arange(len(values)) if flat else steps[0]
    points = np.stack(np.meshgrid(depths, *steps[1:], indexing="ij")).reshape(3, -1)
    return np.asarray(map_coordinates(values, points, order=1, mode="nearest"), np.float32)


def _classes(values: Cells, where: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    shown = values if where is None else values[where]
    low, high = np.percentile(shown, PERCENTILES) if shown.size else (0.0, 1.0)
    return class_of(values, float(low), float(high), BINS)
