"""The reports that the page offers, opened in a browser: they are whole, and name no place of this machine."""

import re
import shutil

import pytest
from browsing import open_page
from paging import Here
from test_training_page import ended

from voxlate.base.files import read_json
from voxlate.evaluation.scoring.metrics import METRIC_OF

NUMBER = re.compile(r"\d+\.\d+")

pytestmark = pytest.mark.browser


@pytest.fixture
def reports(page, run, cohort, tmp_path):
    """The reports of a preparation, a synthesis, scores and a comparison, and the scores' metrics.json."""
    shutil.copytree(run, tmp_path / "second")
    made = page({"tiny": str(run)}, root=tmp_path, start=Here)

    def compared(*names):
        form = {"runs": list(names), "cohort": "cohort", "split": "val"}
        return made.post("/training/compare", data=form)

    surveyed = made.post("/training/survey", data={"place": "cohort"}).headers["location"]
    upload, _ = made.checked(cohort / "case1" / "t1.nii.gz")
    answers = {
        "prepared": made.post(f"{surveyed}/prepare", data={"folder": "new"}),
        "scores": compared("run"),
        "comparison": compared("run", "second"),
    }
    for answer in answers.values():
        ended(made, answer)
    addresses = {name: answer.headers["location"] for name, answer in answers.items()}
    addresses["synthesis"], _ = made.synthesised(upload, "tiny")
    jobs = {name: address.rpartition("/")[2] for name, address in addresses.items()}
    files = {name: tmp_path / f"{name}.html" for name in jobs}
    for name, job in jobs.items():
        files[name].write_bytes(made.get(f"/jobs/{job}/report.html").content)
    (metrics,) = (made.jobs.root / jobs["scores"]).glob("out/*/metrics.json")
    return files, read_json(metrics)


def test_each_report_of_the_page_shows_its_pictures_and_numbers_and_no_place(
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
        assert tmp_path.name not in files[name].read_text(), name
        assert NUMBER.search(text), name
    mean = metrics["modalities"]["t2"]["answers"]["synthesis"]["mae"]["mean"]
    (own,) = [row for row in rows["scores"] if row.startswith("MAE\n")]
    assert METRIC_OF["mae"].text(mean) in own
    assert {"run", "second"} <= {*rows["comparison"][0].split()}
    assert NUMBER.search(rows["comparison"][1])
    assert first["scores"].startswith("Not usable because the error of t2 is higher than that of ")
    assert first["synthesis"].startswith("Usable with care: ")
    assert "run\ntiny\n" in texts["synthesis"]
