"""Copies of a scan among other patients are named, whatever was done to them, and other patients are not."""

import shutil
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from preparing import prepare
from rows import every_row
from voxlate.checks import same_scan
from voxlate.checks.same_scan import field_of, signature_of, similar
from voxlate.scans.cases.align import Preparation
from voxlate.scans.cases.case import prepare_case
from voxlate.scans.formats.io import read_volume, write_volume
from voxlate.scans.images.grid import Volume
from voxlate.synthesis.inputs import is_in_training

SAME, SAME_FLAT = 1.025, 0.98  # limits.toml
MM = (4.0, 3.0, 3.0)
SHAPE = (32, 56, 52)


@cache
def head(seed):
    """An ellipsoid with structures of its own, [D, H, W]."""
    z, y, x = np.mgrid[-1.2:1.2:32j, -1.2:1.2:56j, -1.2:1.2:52j]
    inside = z**2 + y**2 + x**2 < 1
    texture = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 1.6)
    return np.abs(np.where(inside, 100 + 75 * texture / texture.std(), 0)).astype(np.float32)


def likeness(first, second, mm=MM, first_mm=MM):
    fields = [field_of(first, first > 0, first_mm), field_of(second, second > 0, mm)]
    signatures = [signature_of(field)[None] for field in fields]
    return same_scan.likeness(similar(*signatures, least=-1)[0][0], *fields)


@every_row(
    "change",
    [
        lambda scan: np.where(
            scan > 0, scan + np.random.default_rng(9).normal(0, 0.01 * scan.max(), SHAPE), 0
        ),
        lambda scan: scan[:, :, ::-1],
        lambda scan: np.rot90(scan, 1, (1, 2)),
        lambda scan: np.roll(scan, (2, 2), (1, 2)),
        lambda scan: scan[3:, 6:, 4:],
        lambda scan: 400 * (scan / 400) ** 0.7,
        lambda scan: 1.001 * scan,
    ],
)
def test_a_changed_copy_is_like_its_scan(change):
    assert likeness(head(0), change(head(0))) > SAME + 0.05


def test_a_resampled_copy_is_like_its_scan_and_another_head_is_not():
    smaller = ndimage.zoom(head(0), 0.8, order=1)
    mm = np.array(MM) * SHAPE / smaller.shape
    assert likeness(head(0), smaller, mm) > SAME + 0.05
    assert likeness(head(0), head(1)) < SAME - 0.4


def test_a_slice_is_like_its_copy_and_not_like_another():
    scan, other = head(0)[16:17], head(1)[16:17]
    assert likeness(scan, scan[:, :, ::-1] ** 0.8) > SAME_FLAT + 0.2
    assert likeness(scan, other) < SAME_FLAT - 0.2


def test_small_pictures_of_two_heads_are_not_one_for_the_skull_that_both_have():
    y, x = np.mgrid[-1.2:1.2:96j, -1.2:1.2:88j]
    radius = np.hypot(y, x)
    skull = 600 * ((radius > 0.8) & (radius < 0.95)) - 80 * (np.hypot(y, 3 * x) < 0.4)
    first, second = (
        np.where(
            radius < 1,
            np.abs(200 + ndimage.zoom(head(seed)[16], (96 / 56, 88 / 52), order=1) + skull),
            0,
        )[None]
        for seed in (0, 1)
    )
    mm = {"mm": (1, 1, 1), "first_mm": (1, 1, 1)}
    assert likeness(first, second, **mm) < SAME_FLAT - 0.1
    assert likeness(first, first[:, :, ::-1], **mm) > SAME_FLAT + 0.1


def write(path, scan):
    volume = Volume(np.ascontiguousarray(scan)[None], np.diag([3.0, 3, 4, 1]), "a.u.", "", "")
    write_volume(path, volume)


@pytest.fixture
def heads(tmp_path):
    """Three patients; the scan of c is that of a, mirrored and brighter."""
    root = tmp_path / "in"
    for case, scan in (("a", head(0)), ("b", head(1)), ("c", 1.5 * head(0)[:, :, ::-1])):
        write(root / case / "t1.nii.gz", scan)
    (root / "cases.csv").write_text("case,split\na,train\nb,train\nc,val\n")
    return root


def warnings_of(heads):
    return [*prepare(heads, heads.with_name("out"), workers=1, audit=False).warnings]


def test_prepare_names_a_changed_copy_in_another_split(heads):
    (said,) = warnings_of(heads)
    assert (said.code, said.grade, said.case) == ("changed-copy", "do not trust", "a")
    assert "a/t1 and c/t1" in said.text


def test_one_scan_in_two_splits_ends_prepare_with_code_3_and_in_one_split_with_0(
    heads, tmp_path, voxlate
):
    shutil.copy(heads / "a/t1.nii.gz", heads / "b/t1.nii.gz")
    for split, code in (("val", 3), ("train", 0)):
        (heads / "cases.csv").write_text(f"case,split\na,train\nb,{split}\n")
        assert voxlate("prepare", heads, "--out", tmp_path / split, "--no-audit").code == code


def test_two_scans_of_one_patient_may_be_alike(heads):
    (heads / "cases.csv").write_text("case,patient,split\na,x,train\nb,y,val\nc,x,train\n")
    assert warnings_of(heads) == []
    shutil.copy(heads / "a/t1.nii.gz", heads / "c/t1.nii.gz")
    (said,) = warnings_of(heads)
    assert (said.code, said.grade) == ("shared-voxels", "note")


def test_one_mask_in_the_folders_of_two_patients_is_named(heads):
    for case, seed in (("a", 0), ("b", 0), ("c", 1)):
        write(heads / case / "mask.nii.gz", np.float32(head(seed) > 90))
    (said,) = [one for one in warnings_of(heads) if one.code == "same-mask"]
    assert "a, b" in said.text


def test_a_training_scan_that_was_changed_since_is_recognised_and_another_is_not(heads, tmp_path):
    cohort = prepare(heads, tmp_path / "out", workers=1, audit=False, exclude="c")
    trained = cohort.header("a").signatures
    facts = SimpleNamespace(seen_voxels=["0" * 16], seen_signatures=[*trained.values()])
    for case, seen in (("b", False), ("c", True)):
        scan = read_volume(heads / case / "t1.nii.gz", "t1")
        prepared = prepare_case(case, {"t1": scan}, Preparation(), masked=not seen)
        assert is_in_training(facts, prepared, prepared.arrays) == seen
