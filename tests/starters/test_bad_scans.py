"""Scans outside the field of a starter: refused before anything is written, or warned about."""

import nibabel as nib
import numpy as np
import pytest

from starter_pack import pack
from voxlate.images.grid import Volume
from voxlate.starters import names
from voxlate.synthesis.inputs import preparation_for
from voxlate.synthesis.model import load

WITH_FLOOR = """
title = "tiny with a floor"
data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20] }
intensity = { t1 = { kind = "percentile", low = 0, high = 99.5, floor = 0 }, t2 = { kind = "percentile", floor = 0 } }
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 2, batch = 2, precision = "float32", workers = 0, save_every = 2, validate_every = 0 }
"""


@pytest.fixture
def of_scan(trained, voxlate, tmp_path, monkeypatch):
    """Synthesises voxels [x, y, z] by a starter with an intensity floor; gives the answer and the output folder."""
    monkeypatch.setattr(names, "FOLDER", tmp_path / "installed")
    pack(
        trained("floor", WITH_FLOOR),
        tmp_path / "installed" / "tiny",
        trained_on="synthetic heads only",
        accepts={"t1": ["mr"]},
        stripped=False,
        spacing_mm=(1.0, 2.0),
    )

    def run(values, voxel_mm=(2.0, 2.0, 3.0)):
        path = tmp_path / "scan.nii.gz"
        affine = np.diag([-voxel_mm[0], -voxel_mm[1], voxel_mm[2], 1.0])
        nib.save(nib.Nifti1Image(np.asarray(values, np.float32), affine), path)
        out = tmp_path / "out"
        return voxlate("synth", "starter:tiny", path, "--out", out), out

    return run


@pytest.fixture
def head(cohort):
    """The T1 of one of the small heads."""
    return nib.load(next(cohort.glob("*/t1.nii.gz"))).get_fdata()


def test_a_ct_in_place_of_an_mr_is_refused_and_nothing_is_written(of_scan, head):
    answer, out = of_scan(np.where(head > 0, head / 10 - 200, -1000))
    assert answer.code == 2
    assert "is it z-scored, or a CT?" in answer.err
    assert len([line for line in answer.err.splitlines() if line.startswith("voxlate:")]) == 1
    assert not (out / "scan").exists()


def test_a_z_scored_scan_is_refused(of_scan, head):
    body = head[head > 0]
    answer, _ = of_scan(np.where(head > 0, (head - body.mean()) / body.std(), -4))
    assert answer.code == 2
    assert "above 0" in answer.err


def test_an_empty_scan_is_refused(of_scan, head):
    answer, _ = of_scan(np.zeros_like(head))
    assert answer.code == 2
    assert "to show something" in answer.err


def test_a_body_of_another_size_and_shape_must_not_be_trusted(of_scan, head):
    knee = np.zeros_like(head)
    knee[6:14, 8:16] = 500 + 100 * np.arange(6)
    answer, _ = of_scan(knee)
    assert answer.code == 0, answer.err
    assert "it does not show what the training showed" in answer.err
    assert "DO NOT TRUST: scan:" in answer.err


def test_half_a_head_is_said_to_have_another_field_of_view(of_scan, head):
    answer, _ = of_scan(head[: head.shape[0] // 2])
    assert answer.code == 0, answer.err
    assert "mm wide" in answer.err


def test_some_slices_of_a_head_are_as_good_as_all_for_a_network_of_single_slices(of_scan, head):
    answer, _ = of_scan(head[:, :, 3:])
    assert answer.code == 0, answer.err
    assert "mm high" not in answer.err


def test_voxels_of_another_unit_are_warned_about(of_scan, head):
    answer, _ = of_scan(head, voxel_mm=(0.2, 0.2, 0.3))  # centimetres written as millimetres
    assert "where those of the training were 3 x 2 x 2 mm" in answer.err


@pytest.mark.parametrize(("is_starter", "distance"), [(False, 4.0), (True, 2.4)])
def test_a_starter_of_single_slices_keeps_their_distance(trained, is_starter, distance):
    recipe = load(trained("floor", WITH_FLOOR), "cpu").recipe
    scan = Volume(np.ones((1, 4, 6, 8), np.float32), np.diag([1.0, 1.0, 2.4, 1.0]), "a.u.", "t1")
    header = {"preparation": {"spacing_mm": (4.0, 2.0, 2.0)}}
    header |= {"starter": {}} if is_starter else {}
    assert preparation_for(header, recipe, {"t1": scan}).spacing_mm == (distance, 2.0, 2.0)
