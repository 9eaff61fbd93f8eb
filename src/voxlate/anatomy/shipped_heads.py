"""Phantoms: heads of the three label maps that come with the package, on a grid of any size over one field of view.

The maps are those of SynthSeg (Apache-2.0): Billot et al. 2023, Med Image Anal 86:102789.
"""

from functools import lru_cache
from importlib import resources

import numpy as np
from scipy import ndimage

from voxlate.anatomy.diseases import Wanted
from voxlate.anatomy.head import FIELD_MM, Head
from voxlate.anatomy.label_map import LabelMap
from voxlate.anatomy.label_table import CODES, read_table
from voxlate.anatomy.mapped_head import draw_scene, head_of, paint
from voxlate.anatomy.tissue import BRAIN, OTHER_BRAIN, Label
from voxlate.base.array_types import AnyArray

SHIPPED_HEADS = ("head_01", "head_10", "head_18")
TABLE = "synthseg"
_FOLDER = resources.files("voxlate.anatomy") / "heads"
_SPACING_MM = 2.0
_COARSE_MM = 3.0  # voxels of phantoms from which the maps are halved
_INSIDE = (*BRAIN, *OTHER_BRAIN, Label.VENTRICLE, Label.ARTERY, Label.VEIN, CODES["fluid"])
_OUTSIDE = (Label.SINUS, Label.MUCOSA, Label.MUSCLE, Label.SKIN, CODES["soft"])
# What is thin counts for more in a larger voxel, so that its volume stays.
_WEIGHTS = {
    CODES["fluid"]: 1.15,
    CODES["cancellous"]: 1.2,
    int(Label.DEEP_GREY): 1.1,
    int(Label.CHOROID): 1.3,
    int(Label.PALLIDUM): 1.2,
    int(Label.LEUKOARAIOSIS): 1.3,
}


def make_head(seed: int, case: int, size: tuple[int, int, int], lesion: Wanted = "none") -> Head:
    """One case of a cohort; the same seed and case give the same head.

    size: voxels in x, y, z over the same field of view.
    """
    spacing = np.divide(FIELD_MM, size)
    voxel_mm = float(np.prod(spacing)) ** (1 / 3)
    body = _read(map_of(case), 2 if voxel_mm > _COARSE_MM else 1)
    scene = draw_scene(np.random.default_rng([seed, case]), body, lesion)
    assert scene.frame is not None
    # Where the middle of the frame comes to lie, without its bending.
    variation, places = scene.places.variation, scene.places
    from_middle = np.subtract(scene.frame.origin_mm, places.middle_mm)
    origin = variation.turn.T @ (variation.scale * from_middle)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * step for n, step in zip(size, spacing)]
    corner = affine[:3, 3] + origin + scene.shape.centre_mm
    x, y, z = (
        (np.arange(n) * step + first).astype(np.float32)
        for n, step, first in zip(size, spacing, corner)
    )
    return head_of(scene, paint(scene, (x, y, z)), affine, seed, case)


def map_of(case: int) -> str:
    """The name of a case's map; each has each kind of lesion in a cohort of mixed ones."""
    turn = case // len(SHIPPED_HEADS)
    return SHIPPED_HEADS[(case + turn) % len(SHIPPED_HEADS)]


@lru_cache
def _read(name: str, times: int) -> LabelMap:
    """A map that comes with the package; times: by which its voxels are larger."""
    with (_FOLDER / f"{name}.npz").open("rb") as file:
        codes = np.load(file)["codes"]
    if times > 1:
        codes = halved(codes)
    hull = codes != Label.AIR
    return LabelMap(name, codes, hull, (times * _SPACING_MM,) * 3, read_table(TABLE))


def halved(codes: AnyArray) -> AnyArray:
    """A map with voxels twice as large, each with the code that most of its eight parts have, and with a closed skull."""
    even = np.pad(codes, [(0, length % 2) for length in codes.shape])
    d, h, w = (length // 2 for length in even.shape)
    parts = even.reshape(d, 2, h, 2, w, 2)
    out = np.zeros((d, h, w), np.uint8)
    most = np.zeros((d, h, w), np.float32)
    for code in np.unique(codes):
        votes = (parts == code).sum((1, 3, 5)) * np.float32(_WEIGHTS.get(int(code), 1))
        wins = votes > most
        out[wins] = code
        most[wins] = votes[wins]
    return _with_closed_skull(out)


def _with_closed_skull(codes: AnyArray) -> AnyArray:
    """A map with bone where soft tissue or air lies beside the fluid of the brain: maps have holes where bone is thin."""
    inside = np.isin(codes, _INSIDE)
    inside = ndimage.binary_opening(
        inside, iterations=2
    )  # without nerves and vessels that leave the skull
    around = ndimage.binary_dilation(inside, np.ones((3, 3, 3)))
    holes = around & np.isin(codes, _OUTSIDE)
    lowest = np.flatnonzero(np.isin(codes, BRAIN).any((1, 2)))[0]
    holes[:lowest] = False
    return np.where(holes, np.uint8(Label.BONE), codes)
