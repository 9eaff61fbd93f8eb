"""The page of a prepared cohort: are its scans in register, or what do they show."""

import numpy as np

from voxlate.evaluation.reports.case_pictures import chequerboard


def test_a_chequerboard_has_eight_squares_along_the_shorter_side():
    bright, dark = np.full((16, 32), 255), np.full((16, 32), 64)
    board = chequerboard(bright, dark, (2.0, 1.0))  # squares of 4 mm: 2 rows, 4 columns
    assert (board[:2, :4] == 255).all()
    assert (board[:2, 4:8] == 64).all()
    assert (board[2:4, :4] == 64).all()
    assert np.unique(board, return_counts=True)[1].tolist() == [256, 256]
