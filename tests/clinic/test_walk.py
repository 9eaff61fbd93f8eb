"""Objects of every kind, from their export to an archive and back."""

from dataclasses import replace

import numpy as np
import pytest

import voxlate as package
from made_volumes import save
from voxlate.clinic.address import Node
from voxlate.clinic.dimse import NodeArchive
from voxlate.clinic.sending import Ledger, send
from voxlate.clinic.web import WebArchive
from voxlate.scans.formats.io import read_volume
from voxlate.synthesis.result import Synthesised

pydicom = pytest.importorskip("pydicom")


@pytest.mark.pacs
@pytest.mark.slow
def test_every_exported_object_is_taken_by_an_archive_and_comes_back_to_the_byte(
    shared, orthanc, tmp_path
):
    pytest.importorskip("highdicom")
    source = shared / "data" / "dicom" / "ct_head_phantom"
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
