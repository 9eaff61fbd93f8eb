"""Addresses of studies and nodes; what is none is one sentence."""

from refusals import refuses
from rows import every_row
from voxlate.clinic.archives import Node, StudyAddress, node, study_address


@every_row(
    "text, address",
    [
        ("https://pacs.org/studies/1.2", StudyAddress("https://pacs.org", "1.2")),
        (
            "http://pacs:80/a/b/studies/1.2/series/3.4/",
            StudyAddress("http://pacs:80/a/b", "1.2", "3.4"),
        ),
        ("http://[::1]:80/studies/1", StudyAddress("http://[::1]:80", "1")),
    ],
)
def test_an_address_names_a_server_and_a_study(text, address):
    assert study_address(text) == address


@every_row(
    "text",
    [
        "https://pacs.org",
        "https://pacs.org/studies/",
        "https://pacs.org/studies/1.2/..",
        "https://pacs.org/studies/" + "1" * 65,
        "https:///studies/1.2",
        "dicomweb://pacs.org/studies/1.2",
    ],
)
def test_other_texts_are_refused(text):
    with refuses("address"):
        study_address(text)


def test_a_password_in_an_address_is_refused_and_not_repeated():
    with refuses("netrc") as refused:
        study_address("https://anna:secret@pacs.org/studies/1.2")
    assert "secret" not in str(refused.value)


def test_a_node_has_a_title_a_host_and_a_port():
    assert node("PACS_1@10.0.0.1:104") == Node("PACS_1", "10.0.0.1", 104)


@every_row(
    "text", ["PACS", "@host:1", "A@host", "A@host:0", "A@host:99999", "A B@h:1", "A" * 17 + "@h:1"]
)
def test_other_nodes_are_refused(text):
    with refuses("expected"):
        node(text)
