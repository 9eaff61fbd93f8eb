"""The walk of docs/guides/consumers.md: a sagittal MR series of a phantom, its CT by a starter, and four of its users."""

import numpy as np
import pytest

from rows import slow
from voxlate.base.files import read_json
from voxlate.clinic.consumers.tissues import default_table
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Volume, canonical, orient, return_to
from voxlate.scans.images.mask import foreground
from voxlate.training.starters import names

pytest.importorskip("highdicom")
from dicom_slices import write_series


def voxels(path):
    """The voxels of an image on canonical axes."""
    return canonical(read_volume(path, path.name.partition(".")[0])).data[0]


@slow
def test_an_mr_series_becomes_what_each_of_four_users_reads(
    tmp_path, shipped_starters, monkeypatch, voxlate
):
    def run(*arguments):
        return voxlate(*arguments).done()

    def export(source, user, *options):
        run("export", source, "--for", user, *options, "--out", tmp_path / user)
        return tmp_path / user / ("ct" if source != "OUT" else case.name)

    monkeypatch.setattr(names, "FOLDER", shipped_starters)
    monkeypatch.chdir(tmp_path)
    phantom = ("--cases", 1, "--size", 80, 96, 64, "--lesion", "none", "--seed", 48)
    run("phantom", *phantom, "--modality", "t1", "--modality", "ct", "--out", "COHORT")
    (case,) = (tmp_path / "COHORT").glob("phantom_*")
    scan = orient(read_volume(case / "t1.nii.gz", "t1"), "PIR")
    scan.data[:] = np.rint(scan.data * 8)
    tags = {"Modality": "MR", "ImageType": ["ORIGINAL", "PRIMARY"], "BodyPartExamined": "HEAD"}
    write_series(scan, tmp_path / "SCANS" / case.name / "t1", **tags)
    run("synth", "starter:head-mr-to-ct", "SCANS", "--out", "OUT")
    true_ct = read_volume(case / "ct.nii.gz", "ct")

    plan = export("OUT", "planning", "--clear-outside")
    series = canonical(read_volume(plan / "dicom/ct"))
    assert np.abs(series.data[0] - voxels(plan / "ct.nii.gz")).max() <= 0.5
    body = voxels(plan / "body.nii.gz") > 0
    assert (series.data[0][~body] == -1000).all()
    true_plan = return_to(true_ct, series.grid)
    head = foreground(true_plan)
    assert 2 * (body & head).sum() / (body.sum() + head.sum()) > 0.95
    density = voxels(plan / "electron_density.nii.gz")[head]
    true_density = default_table("electron_density")(true_plan.data[0])[head]
    assert np.abs(density - true_density).mean() < 0.08

    wepl = voxels(export("OUT", "proton", "--beam", 90) / "wepl.nii.gz")
    true_wepl = voxels(export(case / "ct.nii.gz", "proton", "--beam", 90) / "wepl.nii.gz")
    assert np.abs(wepl - true_wepl)[true_wepl > 0].mean() < 5  # mm

    facts = read_json(export("OUT", "ultrasound", "--beam", 90) / "facts.json")
    assert 3 < facts["skull"]["ct"]["thickness_mm"] < 14

    # a PET of 5 mm in the frame of reference of the head, which covers its middle
    affine = np.diag([-5.0, -5.0, 5.0, 1.0])
    affine[:3, 3] = scan.grid.centre_mm - affine[:3, :3] @ (19.5, 19.5, 9.5)
    pet = Volume(np.ones((1, 20, 40, 40), np.float32), affine, "", "pet")
    pet_series = write_series(pet, tmp_path / "PET", Modality="PT")
    mu = export("OUT", "pet", "--like", pet_series, "--kvp", 120) / "dicom/mu"
    map_ = read_volume(mu, "mu_511kev")
    on_pet = return_to(true_ct, map_.grid).data[0]
    assert map_.data[0][np.abs(on_pet - 40) < 40].mean() == pytest.approx(0.0985, abs=0.006)
