"""An Orthanc server on this machine, made-up series, and ports that are free."""

import json
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid  # noqa: E402

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
START_SECONDS = 60


def mr_slice(number: int, study: str, series: str, patient: str = "P1") -> Dataset:
    """A slice of an MR series."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = MRImageStorage
    uid = generate_uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.FrameOfReferenceUID = study
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Test^Head", patient, ""
    dataset.PatientSex, dataset.StudyDate, dataset.StudyTime = "", "20200301", "101112"
    dataset.StudyID = dataset.AccessionNumber = ""
    dataset.Modality, dataset.SeriesDescription = "MR", "t1"
    dataset.ImageType, dataset.SeriesNumber = ["ORIGINAL", "PRIMARY"], 1
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 24, 20, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelSpacing, dataset.SliceThickness = [2, 2], 3
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [0, 0, 3 * number]
    dataset.InstanceNumber = number + 1
    rows, columns = np.mgrid[-1:1:24j, -1:1:20j]
    head = (rows**2 + columns**2 < 0.7) * (500 + 100 * np.sin(4 * rows + number))
    dataset.PixelData = head.astype(np.uint16).tobytes()
    return dataset


@pytest.fixture
def series(tmp_path) -> Path:
    """A folder with the six slices of a series."""
    folder = tmp_path / "series"
    folder.mkdir()
    study, own = generate_uid(), generate_uid()
    for number in range(6):
        path = folder / f"{number}.dcm"
        mr_slice(number, study, own).save_as(path, enforce_file_format=True)
    return folder


@pytest.fixture
def datasets(series) -> list[Dataset]:
    return [pydicom.dcmread(path) for path in sorted(series.iterdir())]


@pytest.fixture
def free_port():
    """free_port(): a port of this machine that no server uses."""

    def find() -> int:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            return int(found.getsockname()[1])

    return find


@dataclass(frozen=True)
class Orthanc:
    """A running server: its ports, and the port of the node that it knows as VOXLATE."""

    http: int
    dicom: int
    voxlate: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}/dicom-web"

    def rest(self, path: str, **body) -> object:
        """The answer of Orthanc's own interface."""
        import requests

        place = f"http://127.0.0.1:{self.http}/{path}"
        answer = requests.post(place, json=body) if body else requests.get(place)
        answer.raise_for_status()
        return answer.json()

    def instances(self) -> list[str]:
        """The SOP instance UIDs that the server holds."""
        found = self.rest("instances?expand")
        return sorted(one["MainDicomTags"]["SOPInstanceUID"] for one in found)


@pytest.fixture
def orthanc(tmp_path, free_port):
    """An empty Orthanc with DICOMweb, which is ended after the test."""
    binary = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    if binary is None or not PLUGIN.is_file():
        pytest.skip("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
    server = Orthanc(free_port(), free_port(), free_port())
    folder = tmp_path / "orthanc"
    folder.mkdir()
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "HttpPort": server.http,
        "DicomPort": server.dicom,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomModalities": {"voxlate": ["VOXLATE", "127.0.0.1", server.voxlate]},
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [binary, str(folder / "orthanc.json")], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _wait_for(server, process, folder / "log.txt")
        yield server
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(server: Orthanc, process: subprocess.Popen, log: Path) -> None:
    import requests

    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            server.rest("system")
            return
        except requests.RequestException:
            time.sleep(0.1)
    raise RuntimeError(f"Orthanc did not start: {log.read_text()[-2000:]}")
