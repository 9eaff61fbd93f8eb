"""The walk of the guide: series, synthesis by a starter, derived objects, archive, and the same geometry again."""

from pathlib import Path

import numpy as np
import pytest

import voxlate as package
from dciodvfy import TOOL, errors_in
from voxlate.clinic.address import Node, StudyAddress
from voxlate.clinic.dimse import NodeArchive
from voxlate.clinic.sending import Ledger, send
from voxlate.clinic.web import WebArchive, fetch_study
from voxlate.scans.formats.io import read_volume, write_volume
from voxlate.scans.images.grid import Volume, same_grid
from voxlate.synthesis.result import Synthesised
from voxlate.training.starters import names

pydicom = pytest.importorskip("pydicom")


def uid_of(folder: Path, name: str) -> str:
    one = pydicom.dcmread(next(iter(sorted(folder.iterdir()))), stop_before_pixels=True)
    return str(one[name].value)


@pytest.mark.pacs
@pytest.mark.slow
def test_a_real_series_goes_through_synthesis_and_archive_and_keeps_its_geometry(
    shared, shipped_starters, orthanc, tmp_path, monkeypatch, voxlate
):
    monkeypatch.setattr(names, "FOLDER", shipped_starters)
    source = shared / "data" / "dicom" / "t1_studyforrest"
    archive = WebArchive.connect(orthanc.url)
    send(sorted(source.glob("*")), archive, Ledger(tmp_path / "sent.txt"), "archive")
    study = uid_of(source, "StudyInstanceUID")
    address = f"dicomweb://127.0.0.1:{orthanc.http}/dicom-web/studies/{study}"
    number = uid_of(source, "SeriesNumber")
    out = tmp_path / "out"
    voxlate(
        *("synth", "starter:head-mr-to-ct", address, "--series", f"mr={number}"),
        *("--out", out, "--store"),
    ).done()
    assert len(orthanc.instances()) == 97  # 48 slices of each, and the report
    found = archive.client.search_for_series(study)
    (series,) = {one["0020000E"]["Value"][0] for one in found if one["00080060"]["Value"] == ["CT"]}
    fetch_study(archive, StudyAddress(orthanc.url, study, series), tmp_path / "back")
    back, scan = read_volume(tmp_path / "back"), read_volume(source)
    (image,) = out.glob("*/ct.nii.gz")
    assert same_grid(back.grid, scan.grid, 1e-3)
    synthesised = read_volume(image, "ct")
    assert same_grid(back.grid, synthesised.grid, 1e-3)
    assert np.abs(back.data - synthesised.data).max() <= 0.5  # whole Hounsfield units
    if TOOL is not None:
        assert errors_in(next(iter((tmp_path / "back").iterdir()))) == []


@pytest.mark.pacs
@pytest.mark.slow
def test_every_exported_object_is_taken_by_an_archive_and_comes_back_to_the_byte(
    shared, orthanc, tmp_path
):
    pytest.importorskip("highdicom")
    source = shared / "data" / "dicom" / "ct_head_phantom"
    case = _case_on(read_volume(source), tmp_path / "case")
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


def _case_on(scan, folder: Path) -> Path:
    """A synthesis with a map, a spread and a mask on the grid of a scan."""
    small = Volume(scan.data, scan.affine, "HU", "ct")
    spread = Volume(np.abs(scan.data) / np.float32(9), scan.affine, "HU", "ct")
    flow = Volume(np.abs(scan.data) / np.float32(20), scan.affine, "ml/100g/min", "cbf")
    Synthesised({"ct": small, "cbf": flow}, {"ct": spread}, {"model": {"title": "any"}}).write(
        folder
    )
    mask = Volume((scan.data > -300).astype(np.float32), scan.affine, "", "mask")
    write_volume(folder / "mask.nii.gz", mask)
    return folder
