"""Phantoms: heads of the three label maps that come with the package, on a grid of any size over one field of view.

The maps are those of SynthSeg (Apache-2.0): Billot et al. 2023, Med Image Anal 86:102789.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from voxlate.anatomy.diseases import Wanted
from voxlate.anatomy.head import FIELD_MM, Head
from voxlate.anatomy.label_map import LabelMap
from voxlate.anatomy.label_table import read_table
from voxlate.anatomy.mapped_head import draw_scene, head_of, paint
from voxlate.anatomy.tissue import Label

SHIPPED_HEADS = ("head_01", "head_10", "head_18")
TABLE = "synthseg"
SPACINGS_MM = (2, 4)  # of the maps
_COARSE_MM = 3.0  # voxels of phantoms whose maps are the coarse ones


def make_head(seed: int, case: int, size: tuple[int, int, int], lesion: Wanted = "none") -> Head:
    """One case of a cohort; the same seed and case give the same head.

    size: voxels in x, y, z over the same field of view.
    """
    spacing = np.divide(FIELD_MM, size)
    voxel_mm = float(np.prod(spacing)) ** (1 / 3)
    body = _read(map_of(case), SPACINGS_MM[voxel_mm > _COARSE_MM])
    scene = draw_scene(np.random.default_rng([seed, case]), body, lesion)
    assert scene.frame is not None
    # Where the middle of the frame comes to lie, without its bending.
    variation, places = scene.places.variation, scene.places
    from_middle = np.subtract(scene.frame.origin_mm, places.middle_mm)
    origin = variation.turn.T @ (variation.scale * from_middle)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * step for n, step in zip(size, spacing)]
    corner = affine[:3, 3] + origin + scene.centre_mm
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
def _read(name: str, spacing_mm: int) -> LabelMap:
    """A map that comes with the package."""
    codes = np.load(file_of(name, spacing_mm))["codes"]
    hull = codes != Label.AIR
    return LabelMap(name, codes, hull, (float(spacing_mm),) * 3, read_table(TABLE))


def file_of(name: str, spacing_mm: int) -> Path:
    """The file of a map that comes with the package (benchmarks/shipped_maps.py writes it)."""
    return Path(__file__).with_name("heads") / f"{name}_{spacing_mm}mm.npz"
