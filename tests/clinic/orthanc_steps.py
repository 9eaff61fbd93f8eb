"""Steps of the tests with Orthanc."""

import socket


def listens(orthanc) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", orthanc.voxlate)) == 0


def push(orthanc, study: str) -> None:
    """Let Orthanc send a study to the listener."""
    found = orthanc.rest("tools/find", Level="Study", Query={"StudyInstanceUID": study})
    orthanc.rest("modalities/voxlate/store", Resources=found)
