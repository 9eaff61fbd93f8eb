"""Reports opened in a browser: they are whole, and that which the page offers names no place of this machine."""

import re
import shutil

import pytest
from browsing import open_page
from paging import Here

from voxlate.base.files import read_json
from voxlate.evaluation.scoring.metrics import METRIC_OF

NUMBER = re.compile(r"\d+\.\d+")

pytestmark = pytest.mark.browser


@pytest.fixture
def reports(page, typed, run, cohort, prepared, tmp_path):
    """The reports of a preparation, scores, a comparison and a synthesis of the page, and the scores' metrics.json."""
    typed("synth run cohort --out outs/run --split val --device cpu").done()
    typed("evaluate outs/run --truth cohort").done()
    shutil.copytree(tmp_path / "outs" / "run", tmp_path / "outs" / "second")
    typed("report prepared --out prepared.html").done()
    typed("report outs/run --out scores.html").done()
    typed("compare outs/run outs/second --report comparison.html").done()
    made = page({"tiny": str(run)}, start=Here)
    upload, _ = made.checked(cohort / "case1" / "t1.nii.gz")
    address, _ = made.synthesised(upload, "tiny")
    (tmp_path / "synthesis.html").write_bytes(made.get(f"{address}/report.html").content)
    names = ("prepared", "scores", "comparison", "synthesis")
    files = {name: tmp_path / f"{name}.html" for name in names}
    return files, read_json(tmp_path / "outs/run/metrics.json")


def test_each_report_shows_its_pictures_and_numbers_and_that_of_the_page_no_place(
    browser, reports, tmp_path
):
    files, metrics = reports
    first, texts, rows = {}, {}, {}
    for name, file in files.items():
        with open_page(browser, file.as_uri()) as watched:
            watched.page.goto(watched.base)
            first[name] = watched.page.locator("body").inner_text().splitlines()[0]
            for folded in watched.page.locator("summary").all():
                assert not watched.page.locator("dl").last.is_visible(), name
                folded.click()
            texts[name] = watched.page.locator("body").inner_text()
            rows[name] = watched.page.locator("#scores tr").all_inner_texts()
            pictures = watched.page.locator("img[src]")
            pictures.first.wait_for()
            widths = pictures.evaluate_all(
                "images => Promise.all(images.map(i => { i.loading = 'eager'; return i.decode().then(() => i.naturalWidth, () => 0) }))"
            )
            assert len(widths) >= 2, name
            assert min(widths) > 0, name
    for name, text in texts.items():
        assert NUMBER.search(text), name
    assert tmp_path.name not in files["synthesis"].read_text()
    mean = metrics["modalities"]["t2"]["answers"]["synthesis"]["mae"]["mean"]
    (own,) = [row for row in rows["scores"] if row.startswith("MAE\n")]
    assert METRIC_OF["mae"].text(mean) in own
    assert {"run", "second"} <= {*rows["comparison"][0].split()}
    assert NUMBER.search(rows["comparison"][1])
    assert first["scores"].startswith("Do not use: the error of t2 is higher than that of ")
    assert first["synthesis"].startswith("Measured error of t2: ")
    assert "run\ntiny\n" in texts["synthesis"]
