"""Steps of the tests with Orthanc."""

import socket
import time

MOST_SECONDS = 60


def until(condition, what: str) -> None:
    end = time.monotonic() + MOST_SECONDS
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {MOST_SECONDS} s")


def listens(orthanc) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", orthanc.voxlate)) == 0


def push(orthanc, study: str) -> None:
    """Let Orthanc send a study to the listener."""
    found = orthanc.rest("tools/find", Level="Study", Query={"StudyInstanceUID": study})
    orthanc.rest("modalities/voxlate/store", Resources=found)
