"""Tiles: they cover, and blending returns what a voxelwise function gives."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from voxlate.scans.images.tiling import Blend, Tiling


def tiled(function, volume: np.ndarray, tiling: Tiling) -> np.ndarray:
    """A function of all tiles of [C, D, H, W], blended."""
    blend = Blend(tiling, [0.0])
    for start in tiling.starts():
        part = volume[(slice(None), *(slice(s, s + p) for s, p in zip(start, tiling.patch)))]
        tile = np.zeros((1, *tiling.patch), np.float32)
        tile[(slice(None), *map(slice, part.shape[1:]))] = part
        blend.add(function(tile), start)
    return blend.result()


@st.composite
def tilings(draw) -> Tiling:
    shape = [draw(st.integers(1, 21)) for _ in range(3)]
    patch = [draw(st.integers(2, 9)) for _ in range(3)]
    overlap = [draw(st.integers(0, p // 2)) for p in patch]
    return Tiling(*map(tuple, (shape, patch, overlap)))


@settings(deadline=None, max_examples=40)
@given(tilings())
def test_blending_returns_any_voxelwise_function(tiling):
    volume = np.random.default_rng(0).normal(size=(1, *tiling.shape)).astype(np.float32)
    got = tiled(lambda tile: tile**2 + 3, volume, tiling)
    assert_allclose(got, volume**2 + 3, rtol=2e-6)


@settings(deadline=None, max_examples=60)
@given(tilings())
def test_tiles_cover_lie_inside_and_overlap_enough(tiling):
    axes = zip(zip(*tiling.starts()), tiling.shape, tiling.patch, tiling.overlap, strict=True)
    for starts, length, patch, overlap in axes:
        assert min(starts) == 0
        assert max(starts) == max(0, length - patch)
        assert all(b - a <= patch - overlap for a, b in pairwise(sorted({*starts})))


def test_where_no_tile_comes_is_background():
    tiling = Tiling((3, 4, 6), (1, 4, 4), (0, 0, 2))
    for one in (tiling, Tiling((3, 4, 6), (1, 4, 6))):
        blend = Blend(one, [-1.0, 0.0])
        for start in one.starts():
            if start[0] != 1:
                blend.add(np.full((2, *one.patch), 5, np.float32), start)
        result = blend.result()
        assert_allclose(result[:, [0, 2]], 5, rtol=1e-6)
        assert (result[0, 1] == -1).all()
        assert (result[1, 1] == 0).all()
