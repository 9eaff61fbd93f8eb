"""The walk of the guide: series, synthesis by a starter, derived objects, archive, and the same geometry again."""

from dataclasses import replace

import numpy as np
import pytest

import voxlate as package
from made_volumes import save
from rows import slow
from voxlate.clinic.address import Node, StudyAddress
from voxlate.clinic.archives import Ledger, NodeArchive, WebArchive, fetch_study, send
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import same_grid
from voxlate.synthesis.result import Synthesised
from voxlate.training.starters import names

pydicom = pytest.importorskip("pydicom")


@pytest.mark.pacs
@slow
def test_a_real_series_goes_through_synthesis_and_archive_and_keeps_its_geometry(
    shared, shipped_starters, orthanc, tmp_path, monkeypatch, voxlate
):
    monkeypatch.setattr(names, "FOLDER", shipped_starters)
    source = shared / "data/dicom/t1_studyforrest"
    files = sorted(source.iterdir())
    archive = WebArchive.connect(orthanc.url)
    send(files, archive, Ledger(tmp_path / "sent.txt"), "archive")
    one = pydicom.dcmread(files[0], stop_before_pixels=True)
    study, out = str(one.StudyInstanceUID), tmp_path / "out"
    address = f"dicomweb://127.0.0.1:{orthanc.http}/dicom-web/studies/{study}"
    chosen = ("--series", f"mr={one.SeriesNumber}")
    voxlate("synth", "starter:head-mr-to-ct", address, *chosen, "--out", out, "--store").done()
    assert len(orthanc.instances()) == 97  # 48 slices of each, and the report
    found = archive.client.search_for_series(study)
    (series,) = {one["0020000E"]["Value"][0] for one in found if one["00080060"]["Value"] == ["CT"]}
    fetch_study(archive, StudyAddress(orthanc.url, study, series), tmp_path / "back")
    back = read_volume(tmp_path / "back")
    (synthesised,) = (read_volume(path, "ct") for path in out.glob("*/ct.nii.gz"))
    assert same_grid(back.grid, read_volume(source).grid, 1e-3)
    assert same_grid(back.grid, synthesised.grid, 1e-3)
    assert np.abs(back.data - synthesised.data).max() <= 0.5  # whole Hounsfield units


@pytest.mark.pacs
@slow
def test_every_exported_object_is_taken_by_an_archive_and_comes_back_to_the_byte(
    shared, orthanc, tmp_path
):
    pytest.importorskip("highdicom")
    source = shared / "data/dicom/ct_head_phantom"
    scan, case = read_volume(source), tmp_path / "case"
    scan.data[:] = np.abs(scan.data)
    flow = replace(scan, unit="ml/100g/min", modality="cbf")
    Synthesised({"ct": scan, "cbf": flow}, {"ct": scan}, {"model": {"title": "any"}}).write(case)
    save(case / "mask.nii.gz", scan.data[0] > 300, "mask", "", scan.affine)
    done = package.export(case, tmp_path / "dicom", source, progress=False)
    assert done.summary == "1 series, 2 maps, 1 mask, 1 report"
    files = sorted((tmp_path / "dicom").glob("*/*/*.dcm"))
    archive = WebArchive.connect(orthanc.url)
    send(files, archive, Ledger(tmp_path / "sent.txt"), "archive")
    for file in files:
        one = pydicom.dcmread(file)
        back = archive.client.retrieve_instance(
            one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPInstanceUID
        )
        assert list(back) == list(one)
    # By C-STORE, too, where each kind of object needs a presentation context.
    node = NodeArchive(Node("ORTHANC", "127.0.0.1", orthanc.dicom), "VOXLATE")
    ledger = Ledger(tmp_path / "by_c_store.txt")
    assert send(files, node, ledger, node.node) == len(files)
    node.close()
