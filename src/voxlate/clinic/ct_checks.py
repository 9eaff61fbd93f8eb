"""What may be wrong with a CT in HU that is converted: sentences on values, padding, couches and units."""

from collections.abc import Iterator, Sequence

import numpy as np

from voxlate.base.arrays import AnyArray
from voxlate.base.errors import BadInput
from voxlate.clinic.consumers.planning import straight_mm
from voxlate.clinic.consumers.tissues import MOST_HU
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import BODY_HU, box_around, foreground

LEAST_HU = -1100.0  # in a body; noise of air reaches a little below -1000
LEAST_ML = 1.0  # of a body; less is a speck
LEAST_LONG_MM = 30.0  # of a body; a head in cm has 20
PADDED = 0.05  # of a body that is exactly 0 HU; of a scan's it is 0.02
BESIDE = 0.05  # of a body's volume; head holders are smaller


def body_of(ct: Volume) -> AnyArray:
    """The body in a CT in HU, bool [D, H, W]; raises BadInput where it shows none."""
    body = foreground(ct)
    if _millilitres(ct, body) < LEAST_ML:
        raise BadInput(
            f"{ct.origin}: expected a body of {LEAST_ML:g} ml or more above {BODY_HU:g} HU, found none. Check the CT and its unit."
        )
    return body


def unusual(ct: Volume, body: AnyArray, others: Sequence[str]) -> Iterator[str]:
    """Sentences on a CT whose conversion may be wrong; body: [D, H, W]; others: names of CTs beside it, which are not read."""
    if others:
        yield f"{', '.join(others)} of the same folder is not read: name its file."
    for guess in ct.guesses:
        yield f"{guess.text.rstrip('.')}."
    yield from _unusual_values(ct.data[0], body)
    beside_ml = _millilitres(ct, (ct.data[0] > BODY_HU) & ~body)
    if beside_ml > BESIDE * _millilitres(ct, body):
        yield f"{beside_ml:.3g} ml above {BODY_HU:g} HU lie beside the body of {_millilitres(ct, body):.3g} ml, as of a couch or a second body: they do not count as body."
    sides = np.array([last - first for first, last in box_around(body)])
    longest = float((sides * ct.grid.spacing_mm).max())
    if longest < LEAST_LONG_MM:
        yield f"the body is at most {longest:.0f} mm long: check the unit of the spacing, which is mm."
    width = straight_mm(body, ct.grid)
    if width:
        yield f"the body has the same outline in all slices over {width:.0f} mm, as a couch or head rest that touches it: it counts as body. Remove it from the CT."


def _unusual_values(hu: AnyArray, body: AnyArray) -> Iterator[str]:
    """Sentences on padding, metal and values below air."""
    padded = float((hu[body] == 0).mean())
    if padded > PADDED:
        yield f"{padded:.0%} of the body are exactly 0 HU, as padding is: they count as water. Set what was not scanned to -1000."
    metal, below_air = hu > MOST_HU, body & (hu < LEAST_HU)
    if metal.any():
        yield f"{metal.sum()} voxels are above {MOST_HU:g} HU, as metal is, up to {hu.max():g}: no conversion was made for them."
    if below_air.any():
        yield f"{below_air.sum()} voxels in the body are below air, down to {hu[below_air].min():g} HU, as where 12 bits of metal overflow: they count as air."


def _millilitres(ct: Volume, voxels: AnyArray) -> float:
    """The volume of voxels of a CT."""
    return float(voxels.sum() * np.prod(ct.grid.spacing_mm) / 1000)
