"""Uploads: what an upload and its archives may be, and that a refused one leaves nothing."""

import io
import zipfile

from refusals import refuses
from rows import every_row
from voxlate.page.uploads import safe_parts

KB = 1024


def archive(files, method=zipfile.ZIP_DEFLATED):
    """A zip with these files."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as opened:
        for entry, content in files.items():
            opened.writestr(entry, content)
    return made.getvalue()


def stored(made):
    """The files of all uploads, by their paths below the folders of the scans."""
    found = made.jobs.root.glob("*/scans/**/*")
    return sorted(path.as_posix().split("/scans/")[1] for path in found if path.is_file())


def test_the_files_of_an_archive_are_unpacked_and_clutter_is_left_out(page):
    made = page()
    names = ("study/1", "study/sub/2", "__MACOSX/1", "study/.DS_Store")
    nested = archive({"inner.zip": archive({"a": b"1"})})
    files = {"my.zip": archive(dict.fromkeys(names, b"x")), "a/other.ZIP": nested}
    made.upload(**files, **{"b/Ö x.nii": b"3"})
    assert stored(made) == ["a/other/inner.zip", "b/Ö_x.nii", "my/study/1", "my/study/sub/2"]


@every_row("name", ["../up.nii", "/etc/up.nii", "C:\\up.nii", "a/../../up.nii", "a/" * 20 + "b"])
def test_a_name_that_leads_out_of_its_folder_is_refused(name):
    with refuses("inside a folder"):
        safe_parts(name)


@every_row(
    "name, safe",
    [
        ("T1 (1).nii.gz", "T1_1_.nii.gz"),
        ("t1=x#y.nii", "t1_x_y.nii"),
        ("x" * 300 + ".nii.gz", "x" * 93 + ".nii.gz"),
        *((left_out, None) for left_out in (".hidden", "a/.git/b", "Thumbs.db", "", "...")),
    ],
)
def test_names_become_names_that_any_system_takes_and_hidden_files_are_left_out(name, safe):
    assert safe_parts(name) == ([safe] if safe else [])


def liar():
    """A zip whose headers state another size of its file than it has."""
    content = bytearray(archive({"a": bytes(range(256)) * 400}))
    for at in (content.find(b"PK\x01\x02") + 24, 22):  # the uncompressed size, in both headers
        content[at : at + 4] = (10).to_bytes(4, "little")
    return bytes(content)


def damaged(method):
    """A zip whose data were changed."""
    content = bytearray(archive({"scan.nii": bytes(range(256)) * 64}, method))
    for place in range(48, 80):
        content[place] ^= 0x5A
    return bytes(content)


REFUSED = {
    "too many files": ({f"{number}.dcm": b"x" for number in range(6)}, "at most 5 files"),
    "too large": ({"a.nii": b"x" * 70 * KB}, "at most 65536 bytes"),
    "two of a name": ({"a b.nii": b"x", "a_b.nii": b"x"}, "twice"),
    "a file as a folder": ({"a": b"x", "a/b": b"x"}, "twice"),
    "no zip": ({"a.zip": b"no zip"}, "zip archive"),
    "a zip that expands too far": ({"a.zip": archive({"a": bytes(70 * KB)})}, "at most 0.0625 MB"),
    "a zip that states other sizes": ({"a.zip": liar()}, "expected"),
    "nothing": ({}, "found"),
    **{
        f"damaged by {method}": ({"my.zip": damaged(method)}, "damaged")
        for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    },
}


def test_a_refused_upload_is_answered_with_a_sentence_and_leaves_nothing(page):
    made = page(files=5, upload_bytes=64 * KB)
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
