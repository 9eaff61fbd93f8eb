"""The upload form in a real browser: files, dropped folders, refusals, and the way without JavaScript."""

import re
from contextlib import ExitStack
from email import message_from_bytes
from email.policy import HTTP

import pytest
from browsing import open_page, render, small_server

expect = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install playwright"
).expect
pytestmark = pytest.mark.browser

FORM = """
<form class="upload" data-upload action="/uploads" method="post" enctype="multipart/form-data">
  <div class="drop"><label for="files">Files or a zip</label>
  <input id="files" name="files" type="file" multiple></div>
  <label for="folder">A folder</label>
  <input id="folder" name="files" type="file" webkitdirectory multiple>
  <button type="submit">Upload</button>
</form>
<script type="module" src="/static/upload.js"></script>
"""
REFUSAL = "brain.txt: expected a NIfTI file, found a text file. Upload the scan itself."


@pytest.fixture
def received():
    """Content of each uploaded file by the name that it was sent under."""
    return {}


@pytest.fixture
def base(received, tmp_path):
    """A server that keeps the parts of an upload; it refuses the file brain.txt."""

    def answer(method, path, body):
        status, text = 200, "<h1>Uploaded</h1>"
        if method == "POST":
            received.update(_parts(body))
            if "brain.txt" in received:
                status, text = 400, f'<p class="error">{REFUSAL}</p>'
        elif path == "/form":
            text = FORM
        elif path != "/uploads":
            return None
        return status, "text/html; charset=utf-8", render(text).encode()

    with small_server(answer, tmp_path) as address:
        yield address


def _parts(body):
    boundary = body[2 : body.index(b"\r\n")]
    head = b'Content-Type: multipart/form-data; boundary="' + boundary + b'"\r\n\r\n'
    parts = message_from_bytes(head + body, policy=HTTP).iter_parts()
    return {
        name[1]: part.get_payload(decode=True)
        for part in parts
        if (name := re.search(r'filename="([^"]+)"', part["Content-Disposition"]))
    }


@pytest.fixture
def form(browser, base):
    """Opens the form; gives the page and its errors."""
    with ExitStack() as opened:

        def show(**options):
            watched = opened.enter_context(open_page(browser, base, **options))
            watched.page.goto(base + "form")
            return watched.page, watched.errors

        yield show


@pytest.fixture
def scan(tmp_path):
    """A file to upload."""
    (tmp_path / "t1.nii.gz").write_bytes(b"voxels")
    return tmp_path / "t1.nii.gz"


def upload(page):
    """The button that sends the chosen files."""
    return page.get_by_role("button", name="Upload", exact=True)


def test_chosen_files_arrive_byte_by_byte_and_the_browser_goes_on_without_javascript(
    form, received, scan, tmp_path
):
    (tmp_path / "t2.nii.gz").write_bytes(bytes(range(256)) * 50)
    page, _ = form(java_script_enabled=False)
    page.set_input_files("#files", [scan, tmp_path / "t2.nii.gz"])
    upload(page).click()
    page.get_by_role("heading", name="Uploaded").wait_for()
    assert received == {"t1.nii.gz": b"voxels", "t2.nii.gz": bytes(range(256)) * 50}


def test_a_dropped_folder_arrives_whole_with_the_paths_inside_it(form, received, tmp_path):
    series = tmp_path / "study" / "series 1"
    series.mkdir(parents=True)
    for number in range(130):  # more than a browser hands out of a folder at once
        (series / f"IM{number:04d}").write_bytes(b"slice %d" % number)
    (tmp_path / "study" / "DICOMDIR").write_bytes(b"index")
    page, _ = form()
    box = page.locator(".drop").bounding_box()
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(tmp_path / "study")], "dragOperationsMask": 1}
    place = {"x": box["x"] + 20, "y": box["y"] + 20, "data": data}
    for kind in ("dragEnter", "dragOver", "drop"):  # as a file manager does
        session.send("Input.dispatchDragEvent", {"type": kind, **place})
    page.get_by_role("heading", name="Uploaded").wait_for()
    expected = {f"study/series 1/IM{number:04d}": b"slice %d" % number for number in range(130)}
    assert received == expected | {"study/DICOMDIR": b"index"}


def test_an_upload_of_nothing_and_a_refused_one_show_a_sentence_and_can_be_repeated(
    form, received, tmp_path
):
    (tmp_path / "brain.txt").write_bytes(b"text")
    page, errors = form()
    upload(page).click()
    expect(page.get_by_role("alert")).to_contain_text("No file is chosen")
    assert received == {}
    page.set_input_files("#files", tmp_path / "brain.txt")
    upload(page).click()
    expect(page.get_by_role("alert")).to_have_text(REFUSAL)
    expect(upload(page)).to_be_enabled()
    errors.clear()  # the browser itself reports the status 400


def test_a_broken_connection_is_said_and_a_cancelled_upload_too(form, scan):
    page, errors = form()
    held = []
    page.route("**/uploads", lambda route: held.append(route))
    page.set_input_files("#files", scan)
    upload(page).click()
    expect(upload(page)).to_be_disabled()
    page.get_by_role("button", name="Cancel the upload").click()
    expect(page.get_by_role("alert")).to_have_text("The upload was cancelled.")
    page.unroute("**/uploads")
    page.route("**/uploads", lambda route: route.abort())
    upload(page).click()
    expect(page.get_by_role("alert")).to_contain_text("The connection to voxlate broke")
    errors.clear()  # the browser itself reports the broken connection
