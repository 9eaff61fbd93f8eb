"""The page that computes in the browser (run/browser), as `voxlate serve` hands it out."""

from pathlib import Path

import numpy as np
import pytest
from browsing import open_browser, open_page
from paging import TOKEN, serving

from carried import head, tiny_model

BUILT = Path(__file__).parents[2] / "build" / "browser"


@pytest.fixture
def built(tmp_path):
    """What stands for the built page."""
    (tmp_path / "built").mkdir()
    (tmp_path / "built" / "index.html").write_text("the page")
    (tmp_path / "built" / "worker.js").write_text("")
    return tmp_path / "built"


def test_the_server_hands_the_page_out_to_those_whom_it_let_in(built, page):
    site = page(browser=built)
    answer = site.client.get("/browser/")
    assert answer.text == "the page"
    assert answer.headers["cross-origin-embedder-policy"] == "require-corp"
    assert "'wasm-unsafe-eval'" in answer.headers["content-security-policy"]
    assert "/browser/" in site.client.get("/").text
    site.client.cookies.clear()
    assert site.client.get("/browser/").status_code == 401
    assert "/browser/" not in page(folder="other").client.get("/").text


def test_a_folder_without_the_built_page_is_refused(tmp_path, voxlate):
    answer = voxlate("serve", tmp_path, "--browser", tmp_path)
    assert "expected the page that make browser builds (--browser), found none" in answer.refusal


@pytest.mark.browser
@pytest.mark.skipif(not BUILT.is_dir(), reason="make browser has not built the page")
def test_chromium_gives_the_image_of_python(tmp_path):
    """Within 1e-3 of the range: onnxruntime-web computes in another order."""
    pytest.importorskip("playwright.sync_api")
    pytest.importorskip("onnx")
    from voxlate.exchange.export import export_model
    from voxlate.scans.formats.io import read_volume, write_volume
    from voxlate.synthesis.exported import load_exported

    folder, scan = tmp_path / "MODEL", tmp_path / "scan.nii.gz"
    export_model(tiny_model("a flow from the mean"), folder)
    write_volume(scan, head("LPS"))
    load_exported(folder).synthesise({"t1": scan}, seed=3).save(tmp_path / "python")
    with (
        serving({}, tmp_path / "serve", browser=BUILT) as base,
        open_browser() as browser,
        open_page(browser, base, accept_downloads=True) as watched,
    ):
        page = watched.page
        page.goto(f"{base}enter?token={TOKEN}")
        page.click("text=Synthesise inside this browser")
        page.wait_for_selector("#state:has-text('Ready')")
        page.set_input_files("#folder", folder)
        page.wait_for_selector("#state:has-text('Self-test passed')")
        page.set_input_files("#scan-t1", scan)
        page.fill("#seed", "3")
        page.click("#scans button")
        page.wait_for_selector("[data-viewer][data-ready]")
        with page.expect_download() as download:
            page.click("#downloads a:has-text('t2.nii.gz')")
        download.value.save_as(tmp_path / "t2.nii.gz")
    expected, found = (
        read_volume(path, "t2").data
        for path in (tmp_path / "python" / "t2.nii.gz", tmp_path / "t2.nii.gz")
    )
    assert np.abs(found - expected).max() < 1e-3 * np.ptp(expected)
