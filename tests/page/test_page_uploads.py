"""Uploads: what an upload and its zips may be, and that a refused one leaves nothing."""

import io
import zipfile

from refusals import refuses
from rows import every_row
from voxlate.page import uploads
from voxlate.page.uploads import safe_parts

KB = 1024


def archive(files):
    """A zip with these files."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as opened:
        for entry, content in files.items():
            opened.writestr(entry, content)
    return made.getvalue()


def liar():
    """A zip whose headers state another size of its file than it has."""
    content = bytearray(archive({"a": bytes(range(256)) * 400}))
    for at in (content.find(b"PK\x01\x02") + 24, 22):  # the uncompressed size, in both headers
        content[at : at + 4] = (10).to_bytes(4, "little")
    return bytes(content)


def stored(made):
    """The files of all uploads, by their paths below the folders of the scans."""
    found = made.jobs.root.glob("*/scans/**/*")
    return sorted(path.as_posix().split("/scans/")[1] for path in found if path.is_file())


def test_the_files_of_folders_and_zips_are_stored_and_hidden_ones_are_left_out(page):
    made = page()
    names = ("my/study/1", "my/__MACOSX/._1", "my/.DS_Store", "b/Ö x.nii")
    files = dict.fromkeys(names, b"x")
    made.upload(**files, **{"a/other.ZIP": archive(files)})
    kept = ["b/Ö_x.nii", "my/study/1"]
    assert stored(made) == [*(f"a/other/{name}" for name in kept), *kept]


@every_row("name", ["../up.nii", "/etc/up.nii", "C:\\up.nii", "a/../../up.nii"])
def test_a_name_that_leads_out_of_its_folder_is_refused(name):
    with refuses("inside a folder"):
        safe_parts(name)


@every_row(
    "name, safe",
    [
        ("T1 (1).nii.gz", "T1_1_.nii.gz"),
        ("t1=x#y.nii", "t1_x_y.nii"),
        ("x" * 300 + ".nii.gz", "x" * 93 + ".nii.gz"),
        *((left_out, None) for left_out in (".hidden", "a/.git/b", "", "...")),
    ],
)
def test_names_become_names_that_any_system_takes_and_hidden_files_are_left_out(name, safe):
    assert safe_parts(name) == ([safe] if safe else [])


REFUSED = {
    "too many files": ({f"{number}.dcm": b"x" for number in range(6)}, "at most 5 files"),
    "too large": ({"a.nii": b"x" * 70 * KB}, "at most 65536 bytes"),
    "two of a name": ({"a b.nii": b"x", "a_b.nii": b"x"}, "twice"),
    "a file as a folder": ({"a": b"x", "a/b": b"x"}, "twice"),
    "no zip": ({"a.zip": b"no zip"}, "unpacked"),
    "zips that expand too far": (
        {f"{name}.zip": archive({"a": bytes(40 * KB)}) for name in "bc"},
        "also unpacked",
    ),
    "a zip that states another size": ({"a.zip": liar()}, "unpacked"),
    "a zip that leads out": ({"a.zip": archive({"../../b": b"x"})}, "inside a folder"),
    "nothing": ({}, "found"),
}


def test_a_refused_upload_is_answered_with_a_sentence_and_leaves_nothing(page, monkeypatch):
    monkeypatch.setattr(uploads, "MOST_FILES", 5)
    made = page(upload_bytes=64 * KB)
    for case, (files, sentence) in REFUSED.items():
        answer = made.upload(**files)
        assert answer.status_code == (413 if case == "too large" else 400), case
        assert sentence in answer.text, case
        assert not [*made.jobs.root.glob("*")]
        assert not made.jobs.all()


def test_a_damaged_form_is_refused_and_leaves_nothing(page):
    made = page()
    for kind in ("text/plain", "multipart/form-data", "multipart/form-data; boundary=b"):
        answer = made.post("/uploads", content=b"x", headers={"content-type": kind})
        assert answer.status_code == 400
        assert not [*made.jobs.root.iterdir()]
