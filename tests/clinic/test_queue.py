"""Fetched studies, the record of sent images and the queue of studies, without a network: every image comes, whenever it stops."""

import os
import shutil
from dataclasses import replace

import pydicom
import pytest

from refusals import refuses
from voxlate.base.errors import BadInput
from voxlate.clinic.archives import (
    Ledger,
    Refused,
    StudyAddress,
    WebArchive,
    fetch_study,
    send,
    study_name,
)
from voxlate.clinic.listen import DONE, FAILED, INCOMING, WORK, Queue


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
            raise OSError("cut")
        self.images.append(dataset.SOPInstanceUID)
        if self.calls in self.late:
            raise OSError("cut")

    def has_all(self):
        return len(set(self.images)) == 6


@pytest.fixture
def files(series):
    return sorted(series.iterdir())


def test_every_image_is_sent_although_answers_and_connections_are_lost(files, tmp_path):
    archive, ledger = Fake(before=(2, 5), late=(3,)), Ledger(tmp_path / "sent")
    for _ in range(3):
        with refuses("lost after"):
            send(files, archive, ledger, "x", print)
    send(files, archive, ledger, "x", print)
    assert archive.has_all()
    assert archive.images.count(archive.images[1]) == 2  # whose acknowledgement was lost


def test_an_image_that_a_killed_process_did_not_record_is_sent_again(files, tmp_path):
    archive, ledger = Fake(), Ledger(tmp_path / "sent")
    send(files[:3], archive, ledger, "x", print)
    ledger.path.write_text(ledger.path.read_text()[:-5])  # killed while it wrote the third
    send(files, archive, ledger, "x", print)
    assert archive.has_all()
    assert len(ledger.instances()) == 7  # with the cut line, which is no image's


def test_a_refused_report_is_said_and_left_out_and_the_images_are_sent(files, tmp_path):
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


class OneSeries:
    """The client of a server with one series."""

    def __init__(self, datasets):
        self.images, self.fetched = {one.SOPInstanceUID: one for one in datasets}, []

    def search_for_series(self, study, **_):
        return [{"0020000E": {"Value": ["1.2"]}}]

    def search_for_instances(self, study, series, **_):
        return [{"00080018": {"Value": [uid]}} for uid in self.images]

    def retrieve_instance(self, study, series, instance):
        self.fetched.append(instance)
        return self.images[instance]


def test_the_missing_images_of_a_study_alone_are_fetched(datasets, tmp_path):
    pytest.importorskip("dicomweb_client")
    client = OneSeries(datasets)
    archive, address = WebArchive("http://x", client), StudyAddress("http://x", "1.2")
    fetch_study(archive, address, tmp_path / "study")
    next((tmp_path / "study").iterdir()).unlink()
    fetch_study(archive, address, tmp_path / "study")
    assert len(client.fetched) == len(datasets) + 1
    client.images.clear()
    with refuses("no image"):
        fetch_study(archive, address, tmp_path / "none")


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


@pytest.fixture
def make_old(queue, study):
    """make_old(): as if the images of the study had come a minute ago."""

    def change():
        for file in (queue.path / INCOMING / study).iterdir():
            moment = file.stat().st_mtime - 60
            os.utime(file, (moment, moment))

    return change


def copies(scans, images):
    """An answer: the images of the study as they are."""
    images.mkdir(exist_ok=True)
    return [shutil.copy(path, images) for path in sorted(scans.iterdir())]


def test_a_uid_that_is_a_path_is_refused(queue, datasets):
    datasets[0].SOPInstanceUID = "../../evil"
    with refuses("evil"):
        queue.receive(datasets[0], HungUp())


def test_the_rest_of_an_answer_that_could_not_be_sent_is_sent_by_the_next_call(
    queue, study, make_old
):
    make_old()
    archive = Fake(before=(2,))

    def send_or_fail(files, ledger):
        return send(files, archive, ledger, "x", print)

    with refuses("after 1 of"):
        queue.run_next(copies, send_or_fail)
    assert "5 of 6 files" in queue.run_next(copies, send_or_fail)
    assert archive.has_all()
    assert not (queue.path / WORK / study).exists()
    assert len(Ledger(queue.path / DONE / study / "sent.txt").instances()) == 6


def count(files, ledger):
    """Sends nothing, and says that it sent everything."""
    return len(files)


def test_a_study_without_an_answer_is_put_aside_with_the_reason(queue, study, datasets, make_old):
    by_uid = {one.SOPInstanceUID: one for one in datasets}
    for fault, why in (
        (BadInput("no t1 in it"), "no t1 in it"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero"),
    ):

        def fail(scans, images, fault=fault):
            raise fault

        for dataset in by_uid.values():
            queue.receive(dataset, HungUp())
        # an image came just now
        assert queue.next_study() is None
        make_old()
        assert queue.next_study() == study
        said = queue.run_next(fail, count)
        assert study in said
        folder = queue.path / FAILED / study
        assert why in (folder / "why.txt").read_text()
        kept = [pydicom.dcmread(path) for path in (folder / "scans").iterdir()]
        assert {one.SOPInstanceUID: one for one in kept} == by_uid
        assert queue.run_next(fail, count) is None
        shutil.rmtree(folder)


def test_a_study_that_was_being_taken_or_removed_when_the_process_was_killed_is_found_or_gone(
    queue, study, make_old
):
    make_old()
    (queue.path / WORK / study).mkdir(parents=True)
    (queue.path / WORK / ".removed/scans").mkdir(parents=True)
    assert "6 of 6 files" in queue.run_next(copies, count)


def test_a_study_that_the_archive_sends_back_is_not_sent_again(queue, datasets, make_old):
    archive = Fake()

    def send_all(files, ledger):
        return send(files, archive, ledger, "x", print)

    make_old()
    assert "6 of 6 files" in queue.run_next(copies, send_all)
    for dataset in datasets:
        queue.receive(dataset, HungUp())
    make_old()
    assert "0 of 6 files" in queue.run_next(copies, send_all)
    assert archive.calls == 6


def test_a_study_that_meets_a_full_disk_is_put_aside_and_never_answered_in_part(
    queue, study, datasets, make_old
):
    narrow = replace(queue, idle_seconds=0.0, spare_bytes=2**60)
    with pytest.raises(OSError, match="of free disk"):
        narrow.receive(datasets[0], HungUp())
    assert "of free disk" in narrow.run_next(copies, count)
    assert (queue.path / FAILED / study / "why.txt").is_file()
    for dataset in datasets:  # sent again, where there is room
        queue.receive(dataset, HungUp())
    make_old()
    assert "6 of 6 files" in queue.run_next(copies, count)
