"""DICOMweb and C-STORE against Orthanc: what was fetched and stored is what was there, and each image once."""

import numpy as np
import pydicom
import pytest

from voxlate.base.errors import BadInput
from voxlate.clinic.address import Node, study_address
from voxlate.clinic.dimse import NodeArchive
from voxlate.clinic.sending import Ledger, send
from voxlate.clinic.web import WebArchive, fetch_study
from voxlate.scans.formats.io import read_volume

pytestmark = [pytest.mark.pacs, pytest.mark.slow]


def files_of(folder):
    return sorted(folder.iterdir())


def address_of(orthanc, datasets):
    uid = datasets[0].StudyInstanceUID
    return study_address(f"dicomweb://127.0.0.1:{orthanc.http}/dicom-web/studies/{uid}")


def test_a_stored_series_comes_back_the_same_and_only_missing_images_are_fetched_again(
    orthanc, series, datasets, tmp_path
):
    archive = WebArchive.connect(orthanc.url)
    ledger = Ledger(tmp_path / "sent.txt")
    assert send(files_of(series), archive, ledger, "archive") == 6
    assert orthanc.instances() == sorted(one.SOPInstanceUID for one in datasets)
    assert send(files_of(series), archive, ledger, "archive") == 0
    folder = tmp_path / "fetched"
    files = fetch_study(archive, address_of(orthanc, datasets), folder)
    assert len(files) == 6
    before, after = read_volume(series), read_volume(folder)
    np.testing.assert_array_equal(before.data, after.data)
    np.testing.assert_allclose(before.affine, after.affine, atol=1e-9)
    kept = files[0].stat().st_mtime_ns
    files[3].unlink()
    fetch_study(archive, address_of(orthanc, datasets), folder)
    assert files[3].is_file()
    assert files[0].stat().st_mtime_ns == kept


def test_a_study_that_is_not_there_is_one_sentence(orthanc, tmp_path):
    address = study_address(f"dicomweb://127.0.0.1:{orthanc.http}/dicom-web/studies/1.2.3")
    with pytest.raises(BadInput, match=r"1\.2\.3"):
        fetch_study(WebArchive.connect(orthanc.url), address, tmp_path / "fetched")


def test_images_are_sent_to_a_node_and_each_once(orthanc, series, datasets, tmp_path):
    archive = NodeArchive(Node("ORTHANC", "127.0.0.1", orthanc.dicom), "VOXLATE")
    ledger = Ledger(tmp_path / "sent.txt")
    assert send(files_of(series)[:2], archive, ledger, archive.node) == 2
    assert archive.has(datasets[0])
    assert not archive.has(datasets[5])
    assert send(files_of(series), archive, ledger, archive.node) == 4
    archive.close()
    assert orthanc.instances() == sorted(one.SOPInstanceUID for one in datasets)
    stored = pydicom.dcmread(files_of(series)[0])
    assert stored.PixelData == datasets[0].PixelData


def test_a_lost_connection_is_made_again_and_an_acknowledged_image_is_not_sent_twice(
    orthanc, series, datasets, tmp_path, monkeypatch
):
    from voxlate.clinic.sending import Lost

    archive = WebArchive.connect(orthanc.url)
    store, sent, waits = WebArchive.store, [], []

    def store_and_lose(self, dataset):
        """The answer of the third image is lost; before the fifth the connection is."""
        sent.append(dataset.SOPInstanceUID)
        if len(sent) == 5:
            raise Lost("cut")
        store(self, dataset)
        if len(sent) == 3:
            raise Lost("cut")

    monkeypatch.setattr(WebArchive, "store", store_and_lose)
    ledger = Ledger(tmp_path / "sent.txt")
    assert send(files_of(series), archive, ledger, "archive", waits.append) == 6
    assert waits == [1.0, 1.0]
    assert len(sent) == 7  # the third was there, so only the fifth was sent again
    assert sent.count(datasets[2].SOPInstanceUID) == 1
    assert orthanc.instances() == sorted(one.SOPInstanceUID for one in datasets)


def test_a_server_that_is_away_is_one_sentence(free_port, series, tmp_path):
    waits = []
    archive = WebArchive.connect(f"http://127.0.0.1:{free_port()}/dicom-web")
    with pytest.raises(BadInput, match="after 0 of"):
        send(files_of(series), archive, Ledger(tmp_path / "sent.txt"), "archive", waits.append)
    assert waits == [1.0, 2.0, 4.0, 8.0]
    node = NodeArchive(Node("AWAY", "127.0.0.1", free_port()), "VOXLATE")
    with pytest.raises(BadInput, match="after 0 of"):
        send(files_of(series), node, Ledger(tmp_path / "sent.txt"), "archive", waits.append)


def test_an_archive_without_stow_is_one_sentence(orthanc, series, tmp_path):
    archive = WebArchive.connect(f"http://127.0.0.1:{orthanc.http}/nothing")
    with pytest.raises(BadInput, match="HTTP 404"):
        send(files_of(series), archive, Ledger(tmp_path / "sent.txt"), "archive")
