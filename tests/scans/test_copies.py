"""Copies of a scan among other patients are named, whatever was done to them, and other patients are not."""

from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from voxlate.checks import same_scan
from voxlate.checks.prepare import prepare
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
def head(seed: int) -> np.ndarray:
    """An ellipsoid with structures of its own, [D, H, W]."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in SHAPE), indexing="ij")
    inside = sum(axis**2 for axis in grid) < 1
    texture = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.6)
    return np.abs(np.where(inside, 100 + 75 * texture / texture.std(), 0)).astype(np.float32)


def likeness(first: np.ndarray, second: np.ndarray, mm: tuple[float, ...] = MM) -> float:
    fields = [field_of(first, first > 0, MM), field_of(second, second > 0, mm)]
    signatures = [signature_of(field)[None] for field in fields]
    return same_scan.likeness(similar(*signatures, least=-1)[0][0], *fields)


def changes(scan: np.ndarray) -> dict[str, tuple[np.ndarray, tuple[float, ...]]]:
    noise = np.random.default_rng(9).normal(0, 0.01 * scan.max(), scan.shape)
    smaller = ndimage.zoom(scan, 0.8, order=1)
    return {
        "noise of 1 %": (np.where(scan > 0, scan + noise, 0), MM),
        "mirrored": (scan[:, :, ::-1], MM),
        "turned": (np.rot90(scan, 1, (1, 2)), MM),
        "shifted": (np.roll(scan, (2, 2), (1, 2)), MM),
        "cropped": (scan[3:, 6:, 4:], MM),
        "resampled": (smaller, tuple(mm * n / m for mm, n, m in zip(MM, SHAPE, smaller.shape))),
        "gamma": (400 * (scan / 400) ** 0.7, MM),
        "scaled": (1.001 * scan, MM),
    }


def test_a_changed_copy_is_like_its_scan_and_another_head_is_not():
    scan, other = head(0), head(1)
    assert likeness(scan, other) < SAME - 0.4
    for name, (copy, mm) in changes(scan).items():
        assert likeness(scan, copy, mm) > SAME + 0.05, name


def test_a_slice_is_like_its_copy_and_not_like_another():
    scan, other = head(0)[16:17], head(1)[16:17]
    assert likeness(scan, scan[:, :, ::-1] ** 0.8) > SAME_FLAT + 0.2
    assert likeness(scan, other) < SAME_FLAT - 0.2


def test_small_pictures_of_two_heads_are_not_one_for_the_skull_that_both_have():
    y, x = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in (96, 88)), indexing="ij")
    radius = np.hypot(y, x)
    skull = 600 * ((radius > 0.8) & (radius < 0.95)) - 80 * (np.hypot(y, 3 * x) < 0.4)
    scans = []
    for seed in (0, 1):
        texture = ndimage.zoom(head(seed)[16], (96 / 56, 88 / 52), order=1)
        scans.append(np.where(radius < 1, np.abs(200 + 1.0 * texture + skull), 0)[None])
    fields = [field_of(scan, scan > 0, (1.0, 1.0, 1.0)) for scan in (*scans, scans[0][:, :, ::-1])]
    signatures = [signature_of(field)[None] for field in fields]
    other, copy = (
        same_scan.likeness(
            similar(signatures[0], signatures[k], least=-1)[0][0], fields[0], fields[k]
        )
        for k in (1, 2)
    )
    assert other < SAME_FLAT - 0.1
    assert copy > SAME_FLAT + 0.1


def write(path: Path, scan: np.ndarray) -> None:
    volume = Volume(np.ascontiguousarray(scan)[None], np.diag([3.0, 3, 4, 1]), "a.u.", "", "")
    write_volume(path, volume)


@pytest.fixture
def heads(tmp_path) -> Path:
    """Three patients; the scan of c is that of a, mirrored and brighter."""
    scans = {"a": head(0), "b": head(1), "c": 1.5 * head(0)[:, :, ::-1]}
    for case, scan in scans.items():
        write(tmp_path / "in" / case / "t1.nii.gz", scan)
    (tmp_path / "in" / "cases.csv").write_text("case,split\na,train\nb,train\nc,val\n")
    return tmp_path / "in"


def test_prepare_names_a_changed_copy_in_another_split(heads, tmp_path):
    (said,) = prepare(heads, tmp_path / "out", workers=1, audit=False).warnings
    assert (said.code, said.grade, said.case) == ("changed-copy", "do not trust", "a")
    assert "a/t1 and c/t1" in said.text


def test_one_scan_in_two_splits_ends_prepare_with_code_3_and_in_one_split_with_0(
    heads, tmp_path, voxlate
):
    (heads / "b" / "t1.nii.gz").write_bytes((heads / "a" / "t1.nii.gz").read_bytes())
    for split, code in (("val", 3), ("train", 0)):
        (heads / "cases.csv").write_text(f"case,split\na,train\nb,{split}\n")
        assert voxlate("prepare", heads, "--out", tmp_path / split, "--no-audit").code == code


def test_two_scans_of_one_patient_may_be_alike(heads, tmp_path):
    (heads / "cases.csv").write_text("case,patient,split\na,x,train\nb,y,val\nc,x,train\n")
    assert prepare(heads, tmp_path / "out", workers=1, audit=False).warnings == ()
    (heads / "c/t1.nii.gz").write_bytes((heads / "a/t1.nii.gz").read_bytes())
    (said,) = prepare(heads, tmp_path / "same", workers=1, audit=False).warnings
    assert (said.code, said.grade) == ("shared-voxels", "note")


def test_one_mask_in_the_folders_of_two_patients_is_named(heads, tmp_path):
    for case, seed in (("a", 0), ("b", 0), ("c", 1)):
        write(heads / case / "mask.nii.gz", np.float32(head(seed) > 90))
    warnings = prepare(heads, tmp_path / "out", workers=1, audit=False).warnings
    (said,) = (one for one in warnings if one.code == "same-mask")
    assert "a, b" in said.text


def test_a_training_scan_that_was_changed_since_is_recognised_and_another_is_not(heads, tmp_path):
    trained = (
        prepare(heads, tmp_path / "out", workers=1, audit=False, exclude="c").header("a").signatures
    )
    facts = SimpleNamespace(seen_voxels=["0" * 16], seen_signatures=[*trained.values()])
    answers = {}
    for case in ("b", "c"):
        scan = read_volume(heads / case / "t1.nii.gz", "t1")
        prepared = prepare_case(case, {"t1": scan}, Preparation(), masked=case == "b")
        answers[case] = is_in_training(facts, prepared, prepared.arrays)
    assert answers == {"b": False, "c": True}
