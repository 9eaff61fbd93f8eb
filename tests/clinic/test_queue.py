"""The record of sent images and the queue of studies, without a network: each image is sent once, whenever it stops."""

import os

import pydicom
import pytest

from voxlate.base.errors import BadInput
from voxlate.clinic.queue import DONE, FAILED, INCOMING, WORK, Queue, study_name
from voxlate.clinic.sending import Ledger, Lost, Refused, send


class HungUp:
    """An association that has ended."""

    is_established = False


class Fake:
    """An archive that counts; it is lost before each of these numbers of calls, and after those of `late`."""

    def __init__(self, before=(), late=()):
        self.images, self.calls, self.before, self.late = [], 0, before, late

    def store(self, dataset):
        self.calls += 1
        if self.calls in self.before:
            raise Lost("cut")
        self.images.append(dataset.SOPInstanceUID)
        if self.calls in self.late:
            raise Lost("cut")

    def has(self, dataset):
        return dataset.SOPInstanceUID in self.images


def files_of(series):
    return sorted(series.iterdir())


def test_each_image_is_sent_once_although_answers_and_connections_are_lost(series, tmp_path):
    archive, waits = Fake(before=(1, 2, 6), late=(4, 8)), []
    assert send(files_of(series), archive, Ledger(tmp_path / "sent"), "x", waits.append) == 6
    assert len(archive.images) == len(set(archive.images)) == 6
    assert waits == [1.0, 2.0, 1.0, 1.0, 1.0]


def test_after_too_many_attempts_the_same_call_sends_the_rest(series, tmp_path):
    archive, ledger = Fake(before=(3, 4, 5, 6, 7)), Ledger(tmp_path / "sent")
    with pytest.raises(BadInput, match="after 2 of"):
        send(files_of(series), archive, ledger, "x", lambda seconds: None)
    assert send(files_of(series), archive, ledger, "x") == 4
    assert len(archive.images) == len(set(archive.images)) == 6


def test_an_image_that_a_killed_process_did_not_record_is_not_sent_again(series, tmp_path):
    archive, ledger = Fake(), Ledger(tmp_path / "sent")
    send(files_of(series)[:3], archive, ledger, "x")
    lines = ledger.path.read_text().splitlines(keepends=True)
    ledger.path.write_text("".join(lines[:2]) + lines[2][:5])  # killed while it wrote the third
    send(files_of(series), archive, ledger, "x")
    assert len(archive.images) == len(set(archive.images)) == 6
    assert len(ledger.instances()) == 7  # with the cut line, which is no image's


def test_a_refused_report_is_said_and_left_out_and_the_images_are_sent(series, tmp_path):
    files = files_of(series)
    report = pydicom.dcmread(files[0])
    report.SOPClassUID, report.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.3"
    report.save_as(tmp_path / "report.dcm")

    class ImagesAlone(Fake):
        def store(self, dataset):
            if dataset.SOPInstanceUID == "1.2.3":
                raise Refused("the node does not take it")
            super().store(dataset)

    archive, said, ledger = ImagesAlone(), [], Ledger(tmp_path / "sent")
    everything = [tmp_path / "report.dcm", *files]
    assert send(everything, archive, ledger, "PACS", say=said.append) == len(files)
    assert [message.code for message in said] == ["refused"]
    assert "1.2.3" not in ledger.instances()
    with pytest.raises(BadInput, match="image 1"):
        send(everything, archive, ledger, "PACS")


@pytest.fixture
def queue(tmp_path, datasets):
    """A queue with one study."""
    made = Queue(tmp_path / "queue")
    for dataset in datasets:
        made.receive(dataset, HungUp())
    return made


@pytest.fixture
def study(datasets):
    return study_name(str(datasets[0].StudyInstanceUID))


def make_old(queue, study, seconds=60):
    for file in (queue.path / INCOMING / study).iterdir():
        moment = file.stat().st_mtime - seconds
        os.utime(file, (moment, moment))


def copies(scans, images):
    """An answer: the images of the study as they are."""
    images.mkdir(exist_ok=True)
    return [path.rename(images / path.name) for path in sorted(scans.iterdir())]


def test_a_study_waits_until_no_image_came_for_some_seconds(queue, study):
    assert queue.next_study() is None
    make_old(queue, study)
    assert queue.next_study() == study


def test_a_received_image_is_the_image_that_was_sent(queue, study, datasets):
    files = sorted((queue.path / INCOMING / study).iterdir())
    kept = {pydicom.dcmread(one).SOPInstanceUID: pydicom.dcmread(one) for one in files}
    assert {one.SOPInstanceUID: one for one in datasets} == kept


def test_a_uid_that_is_a_path_is_refused(queue, datasets):
    datasets[0].SOPInstanceUID = "../../evil"
    with pytest.raises(BadInput, match="evil"):
        queue.receive(datasets[0], HungUp())


def test_an_answer_that_could_not_be_sent_stays_and_is_not_made_again(queue, study):
    make_old(queue, study)
    archive, made = Fake(before=(2, 3, 4, 5, 6)), []

    def answer(scans, images):
        made.append(scans)
        return copies(scans, images)

    def send_or_fail(files, ledger):
        return send(files, archive, ledger, "x", lambda seconds: None)

    with pytest.raises(BadInput, match="after 1 of"):
        queue.run_next(answer, send_or_fail)
    assert "5 files sent, 1" in queue.run_next(answer, send_or_fail)
    assert len(made) == 1
    assert len(archive.images) == len(set(archive.images)) == 6
    assert not (queue.path / WORK / study).exists()
    assert len(Ledger(queue.path / DONE / study / "sent.txt").instances()) == 6


def test_a_study_without_an_answer_is_put_aside_with_the_reason(queue, study):
    make_old(queue, study)

    def refuse(scans, images):
        raise BadInput("no t1 in it")

    assert study in queue.run_next(refuse, lambda files, ledger: len(files))
    folder = queue.path / FAILED / study
    assert (folder / "why.txt").read_text() == "no t1 in it\n"
    assert len([*(folder / "scans").iterdir()]) == 6
    assert queue.run_next(refuse, lambda files, ledger: len(files)) is None


def test_a_study_that_was_being_taken_when_the_process_was_killed_is_found(queue, study):
    make_old(queue, study)
    hidden = queue.path / WORK / f".{study}"
    hidden.mkdir(parents=True)
    os.replace(queue.path / INCOMING / study, hidden / "scans")
    assert "6 files" in queue.run_next(copies, lambda files, ledger: len(files))


def test_a_study_that_the_archive_sends_back_is_not_sent_again(queue, study, datasets):
    archive = Fake()

    def send_all(files, ledger):
        return send(files, archive, ledger, "x")

    make_old(queue, study)
    assert "6 files" in queue.run_next(copies, send_all)
    for dataset in datasets:
        queue.receive(dataset, HungUp())
    make_old(queue, study)
    assert "0 files sent, 6" in queue.run_next(copies, send_all)
    assert archive.calls == 6


def test_a_study_that_was_being_removed_when_the_process_was_killed_is_removed(queue, study):
    removed = queue.path / WORK / f".{study}.removed"
    (removed / "scans").mkdir(parents=True)
    assert queue.run_next(copies, lambda files, ledger: len(files)) is None
    assert not removed.exists()


def test_a_fault_in_one_study_does_not_end_the_service(queue, study):
    make_old(queue, study)

    def fail(scans, images):
        raise ZeroDivisionError("by zero")

    assert "ZeroDivisionError: by zero" in queue.run_next(fail, lambda files, ledger: 0)
    assert queue.next_study() is None
