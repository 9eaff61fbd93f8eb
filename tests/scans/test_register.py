"""Registration of scans whose true relation is a formula: no interpolation stands between the test and the answer."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng
from scipy.spatial.transform import Rotation

from preparing import prepare
from refusals import refuses
from rows import every_row
from scans import indices
from voxlate.scans.images import register as module
from voxlate.scans.images.grid import Grid, Volume
from voxlate.scans.images.register import (
    apply_transform,
    read_transform,
    register,
    write_transform,
)

itk = pytest.importorskip("SimpleITK", reason="registration needs the extra 'registration'")

slow = pytest.mark.slow
Points = np.ndarray  # [..., 3] in RAS mm


def grid_of(shape: tuple[int, int, int], spacing_mm: list[float], origin_mm: list[float]) -> Grid:
    """shape: D, H, W; spacing_mm, with the sign of its direction, and origin_mm: x, y, z."""
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = origin_mm
    return Grid(shape, affine)


FIXED = grid_of((24, 28, 26), [6, 6, 6], [-75, -81, -69])
MOVING = grid_of((30, 30, 30), [-6, 5.5, 5], [90, -80, -70])


@pytest.fixture(autouse=True)
def few_samples(monkeypatch) -> None:
    """Small scans need fewer, and the tests shall be quick."""
    monkeypatch.setattr(module, "SAMPLES", 8000)


def points(grid: Grid) -> Points:
    """The place of every voxel, [D, H, W, 3] in RAS mm."""
    return np.moveaxis(indices(grid), 0, -1) @ grid.affine[:3].T


def head(place: Points, contrast: str) -> np.ndarray:
    """A soft ellipsoid with lumps, seen by two contrasts: what is dark in one is, by and large, bright in the other."""
    x, y, z = np.moveaxis(place, -1, 0)
    edge = 1 / (1 + np.exp(-(60 - np.sqrt(x**2 + (y / 1.15) ** 2 + (z / 0.9) ** 2)) / 3))
    lumps = (
        np.sin(x / 13) * np.cos(y / 17 + 1)
        + np.sin(z / 15 + x / 40)
        + 0.8 * np.cos(x / 8 + 1) * np.cos(y / 8) * np.cos(z / 7)
    )
    grey = edge * (300 + 100 * lumps)
    bright = edge * (600 - 180 * np.tanh(lumps) + 60 * np.cos(2 * lumps))
    return (grey if contrast == "a" else bright).astype(np.float32)


def scan(grid: Grid, to_head: Callable[[Points], Points], contrast: str) -> Volume:
    return Volume(
        head(to_head(points(grid)), contrast)[None], grid.affine, "a.u.", contrast, contrast
    )


def error_mm(transform: object, to_head: Callable[[Points], Points]) -> np.ndarray:
    """How far from home a point inside the fixed head comes that goes to the moving scan and back by the formula."""
    place = points(FIXED)
    inside = place[head(place, "a") > 150][::7]
    lps = inside * [-1, -1, 1]
    there = np.array([transform.TransformPoint(point.tolist()) for point in lps]) * [-1, -1, 1]  # type: ignore[attr-defined]
    return np.linalg.norm(to_head(there) - inside, axis=-1)


TURN = Rotation.from_euler("xyz", [6, -9, 12], degrees=True).as_matrix()


def turned(place: Points) -> Points:
    return (place - [9.0, -14.0, 11.0]) @ TURN


def same(place: Points) -> Points:
    return place


SCAN = scan(FIXED, same, "a")


def bent(place: Points) -> Points:
    """A smooth bend of up to about 7 mm."""
    x, y, z = np.moveaxis(place, -1, 0)
    return place + 7 * np.stack([np.sin(y / 30), np.cos(z / 32) - 0.7, np.sin(x / 28)], axis=-1)


FRAME_MM = np.array([900.0, -700.0, 400.0])


@slow
@every_row("frame_mm", [0 * FRAME_MM, FRAME_MM])
def test_a_turned_head_in_another_contrast_is_registered_whatever_the_frames(monkeypatch, frame_mm):
    monkeypatch.setattr(module, "SAMPLES", 4000)  # a turn needs fewer than a bend

    def from_frame(place):
        return turned(place - frame_mm)

    far = grid_of(MOVING.shape, [-6, 5.5, 5], MOVING.affine[:3, 3] + frame_mm)
    moving = scan(far, from_frame, "b")
    found, transform = register(moving, SCAN, "rigid")
    assert found.kept == "rigid"
    assert error_mm(transform, from_frame).max() < 1.5  # a quarter of a voxel
    assert found.after > found.before + 0.03
    assert frame_mm.any() == (found.before == 1.0)


@slow
def test_splines_follow_a_bend_that_no_linear_map_follows():
    moving = scan(MOVING, bent, "a")
    found, transform = register(moving, SCAN, "bspline")
    assert found.kept == "bspline"
    rigid = transform.GetNthTransform(0)  # SimpleITK applies the last of a composite first
    assert error_mm(transform, bent).mean() < 0.5 * error_mm(rigid, bent).mean()
    pair = module.CoarsePair(moving, SCAN)
    assert pair.similarity(transform) == found.after
    assert pair.similarity(rigid) < found.after


def test_the_same_call_gives_the_same_transform(monkeypatch):
    monkeypatch.setattr(module, "SAMPLES", 300)  # a worse transform, and the same one
    moving = scan(MOVING, turned, "b")
    first, again = (register(moving, SCAN, "rigid")[1].GetParameters() for _ in range(2))
    assert first == again


@slow
def test_a_step_that_makes_the_scans_less_alike_or_folds_them_is_not_kept(
    monkeypatch,
):
    """Not even where the mirror image is more alike: no transform may turn a patient inside out."""
    mirror = itk.ScaleTransform(3, (-1.0, 1.0, 1.0))
    moving = scan(FIXED, same, "b")
    mirrored = scan(FIXED, lambda place: place * [-1, 1, 1], "b")
    before, after = (
        module.CoarsePair(mirrored, SCAN).similarity(by) for by in (itk.Transform(), mirror)
    )
    assert after > before
    away = itk.TranslationTransform(3, (25.0, 0.0, 0.0))
    for scanned, wrong in ((moving, away), (moving, mirror), (moving, None), (mirrored, mirror)):
        monkeypatch.setattr(module, "_rigid", lambda pair, wrong=wrong: wrong)
        found, transform = register(scanned, SCAN, "rigid")
        assert found.kept == "none"
        assert found.after == found.before
        assert np.array_equal(apply_transform(SCAN, FIXED, transform).data, SCAN.data)


def test_a_written_transform_is_read_by_other_tools(tmp_path):
    turn = itk.Euler3DTransform((1.0, 2.0, 3.0), 0.1, 0.2, 0.3, (4.0, 5.0, 6.0))
    spline = itk.BSplineTransform(3)
    spline.SetTransformDomainPhysicalDimensions([50.0] * 3)
    spline.SetParameters(default_rng(0).normal(size=len(spline.GetParameters())).tolist())
    whole = itk.CompositeTransform([turn, spline])
    point = (7.0, 8.0, 9.0)
    path = tmp_path / "moved.tfm"
    write_transform(path, whole)
    read = itk.ReadTransform(str(path)).TransformPoint(point)
    assert read_transform(path).TransformPoint(point) == read
    assert read == pytest.approx(whole.TransformPoint(point))
    assert [*tmp_path.iterdir()] == [path]


@every_row("part", [("0 0 0 0 0 0", "nan 0 0 0 0 0"), ("0 0 0\n", "0 0\n"), ("# sha256", "#")])
def test_a_transform_that_is_not_as_it_was_written_is_refused(tmp_path, part):
    path = tmp_path / "t1.tfm"
    write_transform(path, itk.Euler3DTransform())
    text = path.read_text()
    assert part[0] in text
    path.write_text(text.replace(*part))
    with refuses():
        read_transform(path)


def test_what_cannot_be_registered_gets_one_sentence(monkeypatch):
    far = grid_of(FIXED.shape, [6, 6, 6], [825, -81, -69])
    monkeypatch.setattr(module, "_rigid", lambda pair: None)
    for grid in (Grid((1, 28, 26), FIXED.affine), far):  # too flat, and without overlap
        with refuses():
            register(scan(grid, same, "b"), SCAN, "rigid")


# As a step of prepare.

SHIFT_RAS = np.array([4.0, -3.0, 2.0])  # where the moving scan lies, seen from the fixed one


@pytest.fixture
def pair(tmp_path, save) -> Path:
    """One patient: ct, and a tof whose frame is off by SHIFT_RAS; a label map drawn on each."""
    draw = default_rng(0)
    values = np.zeros((12, 14, 16))
    values[2:10, 3:11, 3:13] = draw.integers(300, 900, (8, 8, 10))
    root = tmp_path / "in/a"
    save(root / "ct.nii.gz", values)
    save(root / "tof.nii.gz", 1000 - values, origin_mm=tuple(SHIFT_RAS))
    save(root / "seg.nii.gz", values > 600)
    save(root / "lesion.nii.gz", values > 800, origin_mm=tuple(SHIFT_RAS))
    return tmp_path / "in"


def known_step(monkeypatch: pytest.MonkeyPatch, ras: np.ndarray = SHIFT_RAS) -> None:
    shift = itk.TranslationTransform(3, (ras * [-1, -1, 1]).tolist())
    monkeypatch.setattr(module, "_rigid", lambda pair: shift)


to_ct = partial(prepare, fixed="ct", workers=1, audit=False)
registered = partial(to_ct, register="rigid")


def test_scans_and_labels_come_to_one_grid_and_the_transform_is_kept(pair, monkeypatch, out):
    known_step(monkeypatch)
    cohort = registered(pair, out)
    case = cohort.case("a")
    ct, tof = (case.volume(name).data[0] for name in ("ct", "tof"))
    assert np.allclose(tof, 1000 - ct, atol=1e-3)
    assert np.array_equal(case.arrays["label.seg"][:], ct > 600)
    # drawn on the tof, moved with it
    assert np.array_equal(case.arrays["label.lesion"][:], ct > 800)
    kept = cohort.header("a").registered["tof"]
    assert cohort.cases[0].registered == {"tof": kept}
    assert (kept.to, kept.asked, kept.kept) == ("ct", "rigid", "rigid")
    assert kept.after > 1.5 > 1.1 > kept.before
    # any tool that reads ITK files gets the same scan from the user's own files
    read = itk.ReadTransform(str(out / "transforms/a/tof.tfm"))
    moving, fixed = (
        itk.ReadImage(str(pair / f"a/{name}.nii.gz"), itk.sitkFloat32) for name in ("tof", "ct")
    )
    resampled = itk.Resample(moving, fixed, read, itk.sitkLinear, 0.0)
    assert np.allclose(itk.GetArrayFromImage(resampled), tof, atol=1e-3)


@slow
def test_a_registration_that_does_harm_is_undone(pair, tmp_path, monkeypatch):
    known_step(monkeypatch)
    found = iter((1.2, 1.1))
    monkeypatch.setattr(module.CoarsePair, "similarity", lambda pair, transform: next(found))
    cohort = registered(pair, tmp_path / "out")
    by_header = to_ct(pair, tmp_path / "header", resample=True)
    mine, theirs = (one.case("a").volume("tof").data for one in (cohort, by_header))
    assert np.array_equal(mine, theirs)
    (warning,) = (one for one in cohort.warnings if one.code == "not-registered")
    assert str(warning).startswith("a: tof: rigid registration did not make it more similar to ct")
    assert not (tmp_path / "out/transforms").exists()
