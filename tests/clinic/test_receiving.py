"""Receiving by C-STORE, on this machine: when a study is complete, and who is let in."""

import time

import pytest

from refusals import refuses
from voxlate.clinic.archives import Ledger, Node, NodeArchive, Refused, WebArchive, send, study_name
from voxlate.clinic.listen import Queue, receive_images
from waiting import free_port

pytest.importorskip("pynetdicom")
IDLE_SECONDS = 0.3
HOST = "127.0.0.1"


@pytest.fixture
def queue(tmp_path) -> Queue:
    return Queue(tmp_path / "queue", IDLE_SECONDS)


@pytest.fixture
def sender(queue):
    """A sender whose title is allowed, and which has no association yet."""
    port = free_port()
    with receive_images(queue.receive, "VOXLATE", port, ["SCANNER"], HOST):
        archive = NodeArchive(Node("VOXLATE", HOST, port), "SCANNER")
        yield archive
        archive.close()


def complete(queue: Queue) -> str:
    over = time.monotonic() + 10
    while (study := queue.next_study()) is None:
        assert time.monotonic() < over
        time.sleep(0.02)
    return study


def test_a_study_is_complete_when_its_association_has_ended_and_nothing_came(
    queue, sender, datasets
):
    study = study_name(str(datasets[0].StudyInstanceUID))
    sender.store(datasets[0])
    for _ in range(3):
        time.sleep(IDLE_SECONDS / 2)
        assert queue.next_study() is None
    sender.store(datasets[1])
    time.sleep(1.5 * IDLE_SECONDS)
    assert queue.next_study() is None
    sender.close()
    assert complete(queue) == study
    assert len([*(queue.take(study) / "scans").iterdir()]) == 2


def test_a_stranger_is_rejected_and_a_sender_that_is_cut_off_keeps_no_study_open(
    queue, sender, datasets
):
    with pytest.raises(Refused, match="rejects STRANGER"):
        NodeArchive(sender.node, "STRANGER").store(datasets[0])
    sender.store(datasets[0])
    sender.association.abort()
    assert complete(queue) == study_name(str(datasets[0].StudyInstanceUID))


def test_a_server_that_is_away_is_one_sentence(series, tmp_path):
    files, ledger = sorted(series.iterdir()), Ledger(tmp_path / "sent.txt")
    archive = WebArchive.connect(f"http://127.0.0.1:{free_port()}/dicom-web")
    archive.client.set_http_retry_params(retry=False)
    with refuses("after 0 of"):
        send(files, archive, ledger, "archive", print)
    node = NodeArchive(Node("AWAY", "127.0.0.1", free_port()), "VOXLATE")
    with refuses("after 0 of"):
        send(files, node, ledger, "archive", print)
