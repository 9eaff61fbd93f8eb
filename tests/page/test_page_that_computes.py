"""The page that computes in the browser (run/browser)."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from browsing import open_browser, open_page

from carried import head, tiny_model

BUILT = Path(__file__).parents[2] / "build" / "browser"


@pytest.fixture
def served():
    """The address of a web server of the built page."""
    handler = partial(SimpleHTTPRequestHandler, directory=BUILT)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.mark.browser
@pytest.mark.skipif(not BUILT.is_dir(), reason="make browser has not built the page")
def test_chromium_gives_the_image_of_python(served, tmp_path):
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
        open_browser() as browser,
        open_page(browser, served, accept_downloads=True) as watched,
    ):
        page = watched.page
        page.goto(served)
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
