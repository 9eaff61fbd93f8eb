"""Tiles: they cover, and blending returns what a voxelwise function gives."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxlate.scans.images.tiling import Blend, Tiling


def seam(volume: np.ndarray, tiling: Tiling) -> float:
    """How much stronger neighbouring voxels of [C, D, H, W] differ across the edges of tiles than elsewhere.

    The mean |difference| over the faces where a tile starts or ends, over the mean over all others, of the worst axis;
    1 is seamless, also where an axis has no such face.
    """
    ratios = [1.0]
    for axis, (length, patch) in enumerate(zip(tiling.shape, tiling.patch)):
        starts = {start[axis] for start in tiling.starts()}
        faces = {s for s in starts if s > 0} | {s + patch for s in starts if s + patch < length}
        steps = np.abs(np.diff(volume, axis=axis + 1)).mean(
            axis=tuple(k for k in range(4) if k != axis + 1)
        )
        at_face = np.isin(np.arange(1, length), list(faces))
        if at_face.any() and not at_face.all():
            ratios.append(
                float(
                    steps[at_face].mean() / max(steps[~at_face].mean(), np.finfo(np.float32).tiny)
                )
            )
    return max(ratios)


def tiled(function, volume: np.ndarray, tiling: Tiling) -> np.ndarray:
    """A function of all tiles of [C, D, H, W] and their starts, blended."""
    blend = Blend(tiling, [0.0])
    for start in tiling.starts():
        part = volume[(slice(None), *(slice(s, s + p) for s, p in zip(start, tiling.patch)))]
        tile = np.zeros((1, *tiling.patch), np.float32)
        tile[(slice(None), *(slice(0, n) for n in part.shape[1:]))] = part
        blend.add(function(tile, start), start)
    return blend.result()


@st.composite
def tilings(draw) -> Tiling:
    shape = tuple(draw(st.integers(1, 21)) for _ in range(3))
    patch = tuple(draw(st.integers(2, 9)) for _ in range(3))
    overlap = tuple(draw(st.integers(0, p // 2)) for p in patch)
    return Tiling(shape, patch, overlap)


@settings(deadline=None, max_examples=40)
@given(tilings())
def test_blending_returns_any_voxelwise_function(tiling):
    volume = np.random.default_rng(0).normal(size=(1, *tiling.shape)).astype(np.float32)
    got = tiled(lambda tile, _: tile**2 + 3, volume, tiling)
    np.testing.assert_allclose(got, volume**2 + 3, rtol=2e-6)


@settings(deadline=None, max_examples=60)
@given(tilings())
def test_tiles_cover_lie_inside_and_overlap_enough(tiling):
    for axis in range(3):
        length, patch, overlap = tiling.shape[axis], tiling.patch[axis], tiling.overlap[axis]
        starts = sorted({start[axis] for start in tiling.starts()})
        assert starts[0] == 0
        assert starts[-1] == max(0, length - patch)
        assert all(b - a <= patch - overlap for a, b in pairwise(starts))


def test_opposite_ramps_add_up_to_one():
    weight = Tiling((1, 1, 24), (1, 1, 16), (0, 0, 8)).weight()[0, 0]
    np.testing.assert_allclose(weight[-8:] + weight[:8], 1, atol=1e-6)
    assert weight.min() > 0


def test_where_no_tile_comes_is_background():
    tiling = Tiling((3, 4, 6), (1, 4, 4), (0, 0, 2))
    for one in (tiling, Tiling((3, 4, 6), (1, 4, 6))):
        blend = Blend(one, [-1.0, 0.0])
        for start in one.starts():
            if start[0] != 1:
                blend.add(np.full((2, *one.patch), 5, np.float32), start)
        result = blend.result()
        np.testing.assert_allclose(result[:, [0, 2]], 5, rtol=1e-6)
        assert (result[0, 1] == -1).all()
        assert (result[1, 1] == 0).all()


def test_tiles_that_disagree_make_a_seam_unless_they_overlap():
    random = np.random.default_rng(0)
    volume = random.normal(size=(1, 1, 64, 64)).astype(np.float32)

    def shifted(tile, start):
        return tile + np.float32(20 * (sum(start) // 16 % 2))

    hard, soft = Tiling((1, 64, 64), (1, 16, 16)), Tiling((1, 64, 64), (1, 32, 32), (0, 16, 16))
    assert seam(volume, hard) == pytest.approx(1, abs=0.2)
    assert seam(tiled(shifted, volume, hard), hard) > 5
    assert seam(tiled(shifted, volume, soft), soft) < 2


def test_an_overlap_as_large_as_the_tile_is_refused():
    with pytest.raises(ValueError, match="overlap"):
        Tiling((4, 4, 4), (2, 2, 2), (2, 0, 0))
