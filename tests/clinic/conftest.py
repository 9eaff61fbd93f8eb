"""An Orthanc server on this machine."""

import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from waiting import free_port

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
START_SECONDS = 60


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
def orthanc(tmp_path):
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


@pytest.fixture
def stored(orthanc, series, datasets, tmp_path):
    """The UID of the study, which Orthanc has."""
    from voxlate.clinic.archives import Ledger, WebArchive, send

    archive = WebArchive.connect(orthanc.url)
    send(sorted(series.iterdir()), archive, Ledger(tmp_path / "first.txt"), "archive", print)
    return str(datasets[0].StudyInstanceUID)


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
