"""The whole page in a real browser: from the upload to the download, by mouse and by keyboard, on a phone, in the dark."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from browsing import Watched, after_drawing, open_page, pixels, serving
from paging import TOKEN, Here

uvicorn = pytest.importorskip(
    "uvicorn", reason="the page needs the extra serve: pip install 'voxlate[serve]'"
)
expect = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install playwright"
).expect
pytestmark = pytest.mark.browser

PHONE = {"width": 360, "height": 740}
FOLDS = (
    (1366, 768),
    (390, 844),
)  # a desktop's and a phone's screen: the viewer with its tools is on it


class Held(Here):
    """A job's process that starts its work when the test lets it."""

    gate = threading.Event()

    def __init__(self, folder: Path) -> None:
        self.gate.wait(300)
        super().__init__(folder)


@contextmanager
def _serving(run: Path, data: Path, start: type[Here]) -> Iterator[str]:
    """A server of the run; yields its base URL."""
    try:
        with serving({"tiny": str(run)}, data, start) as base:
            yield base
    finally:
        Held.gate.set()


@pytest.fixture
def calibrated(voxlate, run, small_head, tmp_path, quick_widths) -> Path:
    """The tiny run from t1 to t2, with intervals from four heads that its training did not see."""
    for number in range(4):
        small_head(tmp_path / "others" / f"new{number}", 100 + number)
    voxlate("calibrate", run, tmp_path / "others").done()
    return run


@pytest.fixture
def scan(small_head, tmp_path) -> Path:
    """A t1 of a head that neither training nor calibration saw."""
    small_head(tmp_path / "incoming", 500, modalities=("t1",))
    return tmp_path / "incoming" / "t1.nii.gz"


def _enter(watched: Watched) -> None:
    watched.page.goto(f"{watched.base}enter?token={TOKEN}")
    watched.page.get_by_role("heading", name="Synthesise a scan").wait_for()


def _bottom(page, selector: str) -> float:
    """The lower edge of an element on a page that is not scrolled."""
    page.evaluate("() => window.scrollTo(0, 0)")
    box = page.locator(selector).bounding_box()
    return box["y"] + box["height"]


def _shown_slice(page, size: tuple[int, int], spacing_mm: tuple[float, float]) -> np.ndarray:
    """Greys at the centres of the voxels of the shown axial slice, as [x, y] to the right and the front."""
    page.locator("#viewer-keys summary").click()
    page.uncheck("[data-smooth]")
    page.uncheck("[data-crosshair]")
    page.evaluate(
        "() => document.querySelectorAll('[data-drawn]').forEach(c => { c.hidden = true; })"
    )
    after_drawing(page)
    screen = pixels(page.locator("[data-canvas]"))[..., 0]
    height, width = screen.shape
    sides = [count * step for count, step in zip(size, spacing_mm)]
    scale = min(width / sides[0], height / sides[1])
    offsets = [
        (count / 2 - np.arange(count) - 0.5) * step * scale for count, step in zip(size, spacing_mm)
    ]
    columns = np.round(width / 2 + offsets[0] - 0.5).astype(int)
    rows = np.round(height / 2 + offsets[1] - 0.5).astype(int)
    return screen[rows[None, :], columns[:, None]]


def test_from_the_upload_to_the_download_which_equals_voxlate_synth_bit_for_bit(
    browser, calibrated, scan, voxlate, tmp_path
):
    Held.gate.clear()
    with (
        _serving(calibrated, tmp_path / "data", Held) as base,
        open_page(browser, base) as watched,
    ):
        page = watched.page
        _enter(watched)
        page.set_input_files("#files", scan)
        page.get_by_role("button", name="Upload, and see").click()
        page.get_by_role("progressbar").wait_for()  # the check has not begun
        Held.gate.set()
        expect(page.get_by_text("Fits.")).to_be_visible()
        Held.gate.clear()
        page.get_by_role("button", name="Synthesise t2").click()
        expect(page.get_by_role("progressbar")).to_be_visible()
        Held.gate.set()
        page.wait_for_selector("[data-viewer][data-ready]")
        # Three clicks until here: the choice of the file, and two buttons.
        expect(page.locator("[data-map-button]")).to_have_attribute("aria-pressed", "false")
        for width, height in FOLDS:
            page.set_viewport_size({"width": width, "height": height})
            assert _bottom(page, "[data-save]") <= height
            assert _bottom(page, ".stage") > 0.5 * height  # the picture takes most of the screen
        page.set_viewport_size({"width": 1366, "height": 768})
        page.click("[data-map-button]")
        expect(page.get_by_role("rowheader", name="Interval", exact=True)).to_be_visible()
        page.click("[data-map-button]")
        expect(page.locator("[data-overlay]")).to_be_hidden()
        assert re.search(r"Expected error of t2: about [\d.]+", page.inner_text("#job"))
        with page.expect_download() as downloading:
            page.get_by_role("link", name="t2.nii.gz", exact=True).click()
        downloaded = tmp_path / "t2.nii.gz"
        downloading.value.save_as(downloaded)

        out = tmp_path / "out"
        voxlate("synth", calibrated, f"t1={scan}", "--out", out, "--seed", "0").done()
        written = next(out.rglob("t2.nii.gz"))
        assert downloaded.read_bytes() == written.read_bytes()

        image = nib.as_closest_canonical(nib.load(downloaded))
        index = int(page.input_value("[data-slice]")) - 1
        assert index == image.shape[2] // 2
        voxels = image.get_fdata()[:, :, index]
        low, high = (
            float(voxels.min()),
            float(voxels.max()),
        )  # so short a training gives flat images
        page.get_by_label("Black").fill(str(low))
        page.get_by_label("White").fill(str(high))
        shown = _shown_slice(page, image.shape[:2], image.header.get_zooms()[:2])
        expected = 255 * (voxels - low) / (high - low)
        assert np.abs(shown - expected)[3:-3, 3:-3].max() <= 2


def _tab_to(page, selector: str, most: int = 60) -> None:
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


def _assert_structure(page) -> None:
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


@pytest.mark.slow
def test_the_whole_way_works_by_keyboard_alone_on_a_phone_in_the_dark(browser, run, scan, tmp_path):
    options = {"viewport": PHONE, "color_scheme": "dark", "reduced_motion": "reduce"}
    with (
        _serving(run, tmp_path / "data", Here) as base,
        open_page(browser, base, **options) as watched,
    ):
        page = watched.page
        _enter(watched)
        assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == (
            "rgb(13, 16, 20)"
        )
        _assert_structure(page)
        _tab_to(page, ".skip")
        _tab_to(page, "#files")
        page.set_input_files("#files", scan)  # the dialog for files belongs to the system
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
