"""The listener against Orthanc: a study comes in, one answer goes out, also where the process was killed."""

import subprocess
import sys
from pathlib import Path

import pytest
from orthanc_steps import listens, push, until

from voxlate.clinic.address import study_name
from voxlate.clinic.archives import Ledger
from voxlate.clinic.listen import DONE, INCOMING, WORK

pytestmark = [pytest.mark.pacs, pytest.mark.slow]


@pytest.fixture
def listener(orthanc, tmp_path):
    """listener(seconds): a process that listens; every process is ended after the test."""
    started = []

    def start(seconds=0.0):
        script = Path(__file__).with_name("listener.py")
        to = f"ORTHANC@127.0.0.1:{orthanc.dicom}"
        arguments = [str(tmp_path / "queue"), str(orthanc.voxlate), to, str(seconds)]
        process = subprocess.Popen([sys.executable, str(script), *arguments])
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def answers(orthanc) -> list[str]:
    """The instances of series that are called SYNTHETIC."""
    found = orthanc.rest("series?expand")
    own = [one for one in found if one["MainDicomTags"].get("SeriesDescription") == "SYNTHETIC"]
    return [name for one in own for name in one["Instances"]]


def test_a_process_killed_after_receiving_or_while_sending_goes_on_and_sends_nothing_twice(
    orthanc, stored, listener, tmp_path
):
    queue, study = tmp_path / "queue", study_name(stored)
    first = listener()
    until(lambda: listens(orthanc), "listening")
    push(orthanc, stored)
    assert len([*(queue / INCOMING / study).glob("*.dcm")]) == 6
    first.kill()
    first.wait()
    second = listener(0.5)
    sent = queue / WORK / study / "sent.txt"
    until(lambda: sent.is_file() and len(Ledger(sent).instances()) >= 2, "two images")
    second.kill()
    second.wait()
    assert 2 <= len(answers(orthanc)) <= 4
    listener()
    done = queue / DONE / study / "sent.txt"
    until(lambda: done.is_file() and not (queue / WORK / study).exists(), "the rest")
    assert len(answers(orthanc)) == 6
    assert not any((queue / INCOMING).iterdir())  # nothing of the patient remains
    assert len(Ledger(done).instances()) == 6
