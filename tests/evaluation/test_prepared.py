"""The page of a prepared cohort: are its scans in register, or what do they show."""

import numpy as np

from made_volumes import save
from preparing import prepare
from rows import slow
from voxlate.evaluation.reports.case_pictures import chequerboard


def test_a_chequerboard_has_eight_squares_along_the_shorter_side():
    bright, dark = np.full((16, 32), 255), np.full((16, 32), 64)
    board = chequerboard(bright, dark, (2.0, 1.0))  # squares of 4 mm: 2 rows, 4 columns
    assert (board[:2, :4] == 255).all()
    assert (board[:2, 4:8] == 64).all()
    assert (board[2:4, :4] == 64).all()
    assert np.unique(board, return_counts=True)[1].tolist() == [256, 256]


@slow
def test_report_shows_at_most_twelve_cases_of_a_prepared_cohort_and_prepare_accepts_its_page(
    voxlate, tmp_path
):
    for number in range(14):
        noise = np.random.default_rng(number).uniform(100, 900, (2, 8, 8, 8))
        for name, values, mm in (("t1", noise[0], 1.0), ("t2", noise[1, :2, :2, :2], 2.0)):
            path = tmp_path / f"in/case{number:02}/{name}.nii.gz"
            save(path, np.pad(values, 2), name, "a.u.", np.diag([mm, mm, mm, 1.0]))
    prepare(tmp_path / "in", tmp_path / "ready", resample=True, workers=1)
    voxlate("report", tmp_path / "ready").done()
    text = (tmp_path / "ready/report.html").read_text()
    assert text.count('<article class="case card">') == 12
    assert "<h3>case00</h3>" in text
    assert "<h3>case13</h3>" in text
    assert text.count("data:image/png") == 12
    prepare(tmp_path / "in", tmp_path / "ready", resample=True, workers=1)
