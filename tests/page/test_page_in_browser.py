"""The whole page in a real browser: from the upload to the download, by mouse and by keyboard, on a phone, in the dark."""

import re
import shutil
import threading
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from browsing import open_page
from paging import TOKEN, Here, serving
from pydicom.uid import BasicTextSRStorage, MediaStorageDirectoryStorage

from dicom_slices import item, save, write_series
from rows import slow
from scans import change_scan
from voxlate.scans.formats.io import read_volume

uvicorn = pytest.importorskip(
    "uvicorn", reason="the page needs the extra serve: pip install 'voxlate[serve]'"
)
expect = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install playwright"
).expect
pytestmark = pytest.mark.browser

PHONE = {"width": 360, "height": 740}
SCREENS = {
    "desktop": {"viewport": {"width": 1366, "height": 768}},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}


class Held(Here):
    """A job's process that starts its work when the test lets it."""

    gate = threading.Event()

    def __init__(self, folder):
        self.gate.wait(300)
        super().__init__(folder)


@pytest.fixture
def entered(browser, tmp_path):
    """entered(run, start, **options): the page of a server of a run, whose token it gave."""
    with ExitStack() as opened:

        def enter(run, start, **options):
            base = opened.enter_context(serving({"tiny": str(run)}, tmp_path / "data", start))
            opened.callback(Held.gate.set)
            page = opened.enter_context(open_page(browser, base, **options)).page
            page.goto(f"{base}enter?token={TOKEN}")
            page.get_by_role("heading", name="Synthesise a scan").wait_for()
            return page

        yield enter


@pytest.fixture
def calibrated(typed, small_head, tiny, tmp_path, quick_widths):
    """A tiny run from t1 to ct, with intervals from four heads that its training did not see."""
    for number in range(10):
        case = tmp_path / ("cohort" if number < 6 else "others") / f"case{number}"
        small_head(case, number, modalities=("t1", "ct"))
        change_scan(case / "ct.nii.gz", lambda ct: np.where(ct > 0, 5 * ct, ct))  # with bone
    text = tiny.read_text().replace("t2", "ct")
    tiny.write_text(text.replace("low = 0, high = 1400", "low = -1000, high = 500"))
    for line in (
        "prepare cohort --out prepared",
        "train tiny.toml --data prepared --out run",
        "calibrate run others",
    ):
        typed(line).done()
    return tmp_path / "run"


@pytest.fixture
def study(small_head, tmp_path):
    """A study as a hospital's disc holds it: t1, t2, a diffusion map, a localiser, a report, and a viewer's files."""
    small_head(tmp_path / "incoming", 500)
    disc = tmp_path / "disc"
    series = {
        "t1_mprage": ("t1", ["ORIGINAL", "PRIMARY"]),
        "t2_tse_tra": ("t2", ["ORIGINAL", "PRIMARY"]),
        "ep2d_diff_ADC": ("t2", ["DERIVED", "PRIMARY", "ADC"]),
        "localizer": ("t2", ["ORIGINAL", "PRIMARY"]),
    }
    for text, (name, kind) in series.items():
        tags = {"Modality": "MR", "SeriesDescription": text, "ImageType": kind}
        volume = read_volume(tmp_path / "incoming" / f"{name}.nii.gz", name)
        write_series(volume, disc / "PA1" / text, StudyInstanceUID="1.2", **tags)
    for path in disc.rglob("*.dcm"):
        path.rename(path.with_suffix(""))
    others = {"PA1/SR/0000": BasicTextSRStorage, "DICOMDIR": MediaStorageDirectoryStorage}
    for place, kind in others.items():
        save(item(SOPClassUID=kind, SOPInstanceUID="1.2.9", Modality="SR"), disc / place)
    for name in ("README.TXT", "LOGO.JPG"):
        (disc / name).write_text(name)
    return Path(shutil.make_archive(str(disc), "zip", disc))


@pytest.mark.parametrize("screen", SCREENS)
def test_a_study_of_a_hospital_becomes_a_ct_by_three_clicks(entered, calibrated, study, screen):
    Held.gate.clear()
    options = SCREENS[screen]
    page, clicks = entered(calibrated, Held, **options), 1  # the choice of the file

    def press(text):
        nonlocal clicks
        clicks += 1
        button = page.get_by_role("button", name=text).first
        button.tap() if "has_touch" in options else button.click()

    page.set_input_files("#files", study)
    _assert_structure(page)
    press("Upload, and see")
    page.wait_for_url("**/uploads/*")  # the upload has a bar of its own
    page.get_by_role("progressbar").wait_for()  # the check has not begun
    _assert_structure(page)
    Held.gate.set()
    expect(page.get_by_text("Fits.").first).to_be_visible()
    assert page.get_by_text("Not offered").count() == 2  # the map and the localiser
    _assert_structure(page)
    Held.gate.clear()
    press("Synthesise ct")
    expect(page.get_by_role("progressbar")).to_be_visible()
    Held.gate.set()
    page.wait_for_selector("[data-viewer][data-ready]")
    assert clicks <= 3
    _assert_structure(page)
    expect(page.locator("[data-map-button]")).to_have_attribute("aria-pressed", "false")
    page.evaluate("() => window.scrollTo(0, 0)")
    height = options["viewport"]["height"]
    image, save, stage = (
        page.locator(one).bounding_box() for one in ("#save", "[data-save]", ".stage")
    )
    assert image["y"] + image["height"] <= 0.3 * height
    assert save["y"] + save["height"] <= height
    assert stage["y"] + stage["height"] > 0.5 * height  # the picture takes most of the screen
    assert re.search(r"Expected error of ct: .*body [\d.]+", page.inner_text("body"))


def _tab_to(page, selector, most=60):
    """Presses Tab until the element has the focus, which must be visible at every stop."""
    for _ in range(most):
        page.keyboard.press("Tab")
        style = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
        place = page.evaluate("() => document.activeElement.outerHTML.slice(0, 120)")
        assert style != "none", f"no visible focus on {place}"
        if page.evaluate("wanted => document.activeElement.matches(wanted)", selector):
            return
    raise AssertionError(f"{selector} is not reached by {most} presses of Tab")


UNNAMED = """() => Array.from(document.querySelectorAll('input, select, textarea, button, a, canvas, progress'))
  .filter(element => element.type !== 'hidden' && !element.closest('[hidden], [aria-hidden]'))
  .filter(element => !element.labels?.length && !element.getAttribute('aria-label') && !element.textContent.trim())
  .map(element => element.outerHTML.slice(0, 120))"""
TWICE = """() => Array.from(document.querySelectorAll('[id]'), element => element.id)
  .filter((id, at, all) => all.indexOf(id) !== at)"""
HEADINGS = """() => Array.from(document.querySelectorAll('h1, h2, h3, h4'), heading => Number(heading.tagName[1]))"""


def _assert_structure(page):
    """No wider than the screen; every control has a name; headings and landmarks as a screen reader needs them."""
    wide = page.evaluate("() => document.documentElement.scrollWidth")
    assert wide <= page.viewport_size["width"]
    assert page.evaluate(UNNAMED) == []
    assert page.evaluate(TWICE) == []
    levels = page.evaluate(HEADINGS)
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.get_attribute("html", "lang") == "en"
    for landmark in ("banner", "navigation", "main"):
        assert page.get_by_role(landmark).count() == 1
    assert "Research software, not a medical device" in page.get_by_role("banner").inner_text()
    assert not re.search(r"(?<![\w-])--[a-z]|voxlate [a-z-]+ [A-Z]{2,}", page.inner_text("body"))


@slow
def test_the_whole_way_works_by_keyboard_alone_on_a_phone_in_the_dark(entered, run, study):
    options = {"viewport": PHONE, "color_scheme": "dark", "reduced_motion": "reduce"}
    page = entered(run, Here, **options)
    background = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(13, 16, 20)"
    _assert_structure(page)
    _tab_to(page, ".skip")
    _tab_to(page, "#files")
    page.set_input_files("#files", study)  # the dialog for files belongs to the system
    _tab_to(page, "button.primary")
    page.keyboard.press("Enter")
    page.get_by_text("Fits.").wait_for()
    _assert_structure(page)
    _tab_to(page, "button.primary")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-viewer][data-ready]")
    _assert_structure(page)

    _tab_to(page, "[data-canvas]")
    before = int(page.input_value("[data-slice]"))
    page.keyboard.press("ArrowUp")
    assert int(page.input_value("[data-slice]")) == before + 1
    page.keyboard.press(" ")
    expect(page.locator('[name="mode"][value="source"]')).to_be_checked()
    page.keyboard.press("2")
    assert page.is_checked('[name="view"][value="coronal"]')
    expect(page.locator("[data-announce]")).to_contain_text("Coronal slice 13 of 24")
    page.focus('[name="mode"][value="source"]')
    page.keyboard.press("ArrowRight")
    expect(page.locator('[name="mode"][value="fusion"]')).to_be_checked()
    page.wait_for_selector("[data-legend]")
    _tab_to(page, "[data-strength]")
    page.keyboard.press("Home")
    assert page.inner_text("[data-strength-text]") == "0 %"
    _assert_structure(page)
    _tab_to(page, "a[download]")
    with page.expect_download() as downloading:
        page.keyboard.press("Enter")
    assert downloading.value.suggested_filename == "t2.nii.gz"
