"""DICOMweb and C-STORE against Orthanc: what was fetched and stored is what was there, and each image once."""

import numpy as np
import pytest

from refusals import refuses
from voxlate.clinic.address import Node, study_address
from voxlate.clinic.archives import Ledger, NodeArchive, WebArchive, fetch_study, send
from voxlate.scans.formats.io import read_volume

pytestmark = [pytest.mark.pacs, pytest.mark.slow]


@pytest.fixture
def files(series):
    return sorted(series.iterdir())


def address_of(orthanc, datasets):
    uid = datasets[0].StudyInstanceUID
    return study_address(f"dicomweb://127.0.0.1:{orthanc.http}/dicom-web/studies/{uid}")


def test_a_stored_series_comes_back_the_same_and_only_missing_images_are_fetched_again(
    orthanc, series, files, datasets, tmp_path
):
    archive = WebArchive.connect(orthanc.url)
    ledger = Ledger(tmp_path / "sent.txt")
    assert send(files, archive, ledger, "archive") == 6
    assert orthanc.instances() == sorted(one.SOPInstanceUID for one in datasets)
    assert send(files, archive, ledger, "archive") == 0
    folder = tmp_path / "fetched"
    fetched = fetch_study(archive, address_of(orthanc, datasets), folder)
    assert len(fetched) == 6
    before, after = read_volume(series), read_volume(folder)
    np.testing.assert_array_equal(before.data, after.data)
    np.testing.assert_allclose(before.affine, after.affine, atol=1e-9)
    kept = fetched[0].stat().st_mtime_ns
    fetched[3].unlink()
    fetch_study(archive, address_of(orthanc, datasets), folder)
    assert fetched[3].is_file()
    assert fetched[0].stat().st_mtime_ns == kept


def test_images_are_sent_to_a_node_and_each_once(orthanc, files, datasets, tmp_path):
    archive = NodeArchive(Node("ORTHANC", "127.0.0.1", orthanc.dicom), "VOXLATE")
    ledger = Ledger(tmp_path / "sent.txt")
    assert send(files[:2], archive, ledger, archive.node) == 2
    assert archive.has(datasets[0])
    assert not archive.has(datasets[5])
    assert send(files, archive, ledger, archive.node) == 4
    archive.close()
    assert orthanc.instances() == sorted(one.SOPInstanceUID for one in datasets)


def test_a_server_that_is_away_is_one_sentence(free_port, files, tmp_path):
    waits = []
    archive = WebArchive.connect(f"http://127.0.0.1:{free_port()}/dicom-web")
    with refuses("after 0 of"):
        send(files, archive, Ledger(tmp_path / "sent.txt"), "archive", waits.append)
    assert waits == [1.0, 2.0, 4.0, 8.0]
    node = NodeArchive(Node("AWAY", "127.0.0.1", free_port()), "VOXLATE")
    with refuses("after 0 of"):
        send(files, node, Ledger(tmp_path / "sent.txt"), "archive", waits.append)
