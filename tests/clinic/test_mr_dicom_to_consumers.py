"""The walk of docs/guides/consumers.md: a sagittal MR series of a phantom, its CT by a starter, and each of its five users."""

import numpy as np
import pytest

from dciodvfy import TOOL, errors_in
from voxlate.base.files import read_json
from voxlate.clinic.consumers.tissues import default_table
from voxlate.evaluation.scoring.evaluators import synthrad2023
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Volume, canonical, orient, return_to
from voxlate.scans.images.mask import foreground
from voxlate.training.starters import names

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
from dicom_slices import write_series  # noqa: E402 - needs pydicom

SIZE = ("80", "96", "64")


@pytest.fixture
def voxels():
    """voxels(path, name): the voxels of an image on canonical axes."""

    def read(path, name=""):
        return canonical(read_volume(path, name)).data[0]

    return read


@pytest.mark.slow
def test_an_mr_series_becomes_what_each_of_five_users_reads(
    tmp_path, shipped_starters, monkeypatch, voxlate, voxels
):
    def run(*arguments):
        return voxlate(*arguments).done()

    monkeypatch.setattr(names, "FOLDER", shipped_starters)
    monkeypatch.chdir(tmp_path)
    phantom = ("--cases", 1, "--size", *SIZE, "--lesion", "none", "--seed", 48)
    run("phantom", *phantom, "--modality", "t1", "--modality", "ct", "--out", "COHORT")
    (case,) = (tmp_path / "COHORT").glob("phantom_*")
    scan = orient(read_volume(case / "t1.nii.gz", "t1"), "PIR")
    write_series(
        Volume(np.rint(scan.data * 8), scan.affine, "a.u.", "t1"),
        tmp_path / "SCANS" / case.name / "t1",
        Modality="MR",
        ImageType=["ORIGINAL", "PRIMARY"],
        BodyPartExamined="HEAD",
    )
    run("synth", "starter:head-mr-to-ct", "SCANS", "--out", "OUT")
    run("export", "OUT", "--for", "planning", "--clear-outside", "--out", "PLAN")
    plan = tmp_path / "PLAN" / case.name
    series = canonical(read_volume(plan / "dicom" / "ct"))
    assert np.abs(series.data[0] - voxels(plan / "ct.nii.gz", "ct")).max() <= 0.5
    body = voxels(plan / "body.nii.gz") > 0
    assert (series.data[0][~body] == -1000).all()
    true_ct = read_volume(case / "ct.nii.gz", "ct")
    true_plan = return_to(true_ct, series.grid)
    head = foreground(true_plan)
    assert 2 * (body & head).sum() / (body.sum() + head.sum()) > 0.95
    density = voxels(plan / "electron_density.nii.gz")[head]
    true_density = default_table("electron_density")(true_plan.data[0])[head]
    assert np.abs(density - true_density).mean() < 0.08
    made = {path.name: sorted(path.iterdir()) for path in (plan / "dicom").iterdir()}
    first = pydicom.dcmread(made["ct"][0])
    assert (first.ImageOrientationPatient, first.ImageType[-1]) == ([1, 0, 0, 0, 1, 0], "AXIAL")
    assert {len(made["body"]), len(made["rtstruct"])} == {1}

    run("export", "OUT", "--for", "proton", "--beam", "90", "--out", "PROTON")
    wepl = voxels(tmp_path / "PROTON" / case.name / "wepl.nii.gz")
    run("export", case / "ct.nii.gz", "--for", "proton", "--beam", "90", "--out", "TRUE")
    true_wepl = voxels(tmp_path / "TRUE" / "ct" / "wepl.nii.gz")
    assert np.abs(wepl - true_wepl)[true_wepl > 0].mean() < 5  # mm

    run("export", "OUT", "--for", "ultrasound", "--beam", "90", "--out", "SOUND")
    facts = read_json(tmp_path / "SOUND" / case.name / "facts.json")
    assert 3 < facts["skull"]["ct"]["thickness_mm"] < 14
    assert 1500 < voxels(tmp_path / "SOUND" / case.name / "sound_speed.nii.gz").max() < 4200

    pet = _pet_of(scan, tmp_path / "PET")
    run("export", "OUT", "--for", "pet", "--like", pet, "--kvp", "120", "--out", "MU")
    mu = tmp_path / "MU" / case.name
    map_ = read_volume(mu / "dicom" / "mu", "mu_511kev")
    assert np.array_equal(map_.data[0], read_volume(mu / "mu.nii.gz").data[0])
    on_pet = return_to(true_ct, map_.grid).data[0]
    assert map_.data[0][np.abs(on_pet - 40) < 40].mean() == pytest.approx(0.0985, abs=0.006)

    options = ("--score", "synthrad2023", "--mask", "body", "--any-truth")
    run("evaluate", "OUT", "--truth", "COHORT", *options)
    scores = read_json(tmp_path / "OUT" / "metrics.json")
    found = scores["modalities"]["ct"]["answers"]["synthesis"]
    image = return_to(read_volume(tmp_path / "OUT" / case.name / "ct.nii.gz", "ct"), true_ct.grid)
    expected = synthrad2023(true_ct.data[0], image.data[0], foreground(true_ct))
    assert found["synthrad2023.mae"]["mean"] == pytest.approx(expected["mae"], rel=1e-4)
    assert 20 < expected["mae"] < 200  # HU in the body
    for file in [made["ct"][0], *made["body"], *made["rtstruct"], *(mu / "dicom" / "mu").iterdir()]:
        assert TOOL is None or errors_in(file) == [], file


def _pet_of(scan, folder):
    """A PET series of 5 mm in the frame of reference of the head, which covers its middle."""
    centre = scan.grid.centre_mm
    affine = np.diag([-5.0, -5.0, 5.0, 1.0])
    affine[:3, 3] = centre - affine[:3, :3] @ (19.5, 19.5, 9.5)
    return write_series(
        Volume(np.ones((1, 20, 40, 40), np.float32), affine, "", "pet"), folder, Modality="PT"
    )
