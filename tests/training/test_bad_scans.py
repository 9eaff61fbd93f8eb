"""Scans outside the field of a starter: refused before anything is written, or warned about."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from refusals import refuses
from rows import every_row
from starter_pack import pack
from trainings import recipe_of_text
from voxlate.scans.cases.align import Preparation
from voxlate.scans.images.grid import Volume
from voxlate.synthesis.inputs import preparation_for
from voxlate.training.load import load
from voxlate.training.starters import names
from voxlate.training.train import train

WITH_FLOOR = """
title = "tiny with a floor"
data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20] }
intensity = { t1 = { kind = "percentile", low = 0, high = 99.5, floor = 0 }, t2 = { kind = "percentile", floor = 0 } }
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 2, batch = 2, precision = "float32", workers = 0, validate_every = 0 }
"""


@pytest.fixture(scope="module")
def installed(prepared_once, tmp_path_factory):
    """The folder of an only starter, `tiny`, whose intensities have a floor."""
    folder = tmp_path_factory.mktemp("installed")
    run = train(recipe_of_text(WITH_FLOOR), prepared_once, folder / "run", device="cpu").folder
    stated = {"trained_on": "synthetic heads only", "stripped": False, "spacing_mm": (1.0, 2.0)}
    pack(run, folder / "starters/tiny", accepts={"t1": ["mr"]}, **stated)
    return folder / "starters"


@pytest.fixture(scope="module")
def model(installed):
    return load(installed / "tiny", "cpu")


@pytest.fixture(scope="module")
def head(cohort_once):
    """The T1 of one of the small heads, [x, y, z]."""
    return nib.load(cohort_once / "case0/t1.nii.gz").get_fdata()


def write_scan(path, values, voxel_mm=(2.0, 2.0, 3.0)):
    """A scan of voxels [x, y, z]."""
    affine = np.diag([*voxel_mm, 1.0]) * [-1, -1, 1, 1]
    nib.save(nib.Nifti1Image(np.asarray(values, np.float32), affine), path)
    return path


def as_ct(head):
    return np.where(head > 0, head / 10 - 200, -1000)


def z_scored(head):
    body = head[head > 0]
    return np.where(head > 0, (head - body.mean()) / body.std(), -4)


def knee(head):
    values = np.zeros_like(head)
    inside = values[6:14, 8:16]
    x, y, z = np.indices(inside.shape)
    inside[:] = 500 + 200 * np.sin(x / 2 + z / 3) + 90 * np.sin(y + z / 2)
    return values


@every_row(
    "change, words",
    [(as_ct, "or a CT"), (z_scored, "above 0"), (np.zeros_like, "to show something")],
)
def test_a_scan_that_is_no_mr_in_arbitrary_units_is_refused(model, head, tmp_path, change, words):
    path = write_scan(tmp_path / "t1.nii.gz", change(head))
    with refuses(words):
        model.check(path)


def test_a_refused_scan_writes_nothing_and_a_knee_is_synthesised_in_capitals(
    installed, head, voxlate, out, tmp_path, monkeypatch
):
    monkeypatch.setattr(names, "FOLDER", installed)
    path = write_scan(tmp_path / "scan.nii.gz", as_ct(head))
    answer = voxlate("synth", "starter:tiny", path, "--out", out)
    assert answer.code == 2
    assert len([line for line in answer.err.splitlines() if line.startswith("voxlate:")]) == 1
    assert not (out / "scan").exists()
    write_scan(path, knee(head))
    answer = voxlate("synth", "starter:tiny", path, "--out", out).done()
    assert "CAUTION: scan:" in answer.err


@every_row("starter, distance", [(None, 4.0), ({"name": "tiny"}, 2.4)])
def test_a_starter_of_single_slices_keeps_their_distance(model, starter, distance):
    scan = Volume(np.ones((1, 4, 6, 8), np.float32), np.diag([1.0, 1.0, 2.4, 1.0]), "a.u.", "t1")
    preparation = Preparation(spacing_mm=(4.0, 2.0, 2.0))
    facts = replace(model.facts, preparation=preparation, starter=starter)
    assert preparation_for(facts, {"t1": scan}).spacing_mm == (distance, 2.0, 2.0)
