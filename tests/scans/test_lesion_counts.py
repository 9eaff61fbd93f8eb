"""Pieces of a region that an image keeps, shrinks, erases and invents: boxes whose fate is known."""

import numpy as np

from voxlate.evaluation.scoring.metrics import count_lesions

SHAPE = (8, 40, 40)


def at(y: int, x: int, size: int = 6) -> tuple[slice, slice, slice]:
    return slice(2, 6), slice(y, y + size), slice(x, x + size)


def test_pieces_of_a_threshold_are_kept_shrunk_erased_and_invented():
    truth, image = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
    for place in ((2, 2), (2, 20), (20, 2)):
        truth[at(*place)] = 100
    image[at(2, 2)] = 100  # kept
    image[at(2, 20, 3)] = 100  # a quarter
    image[at(30, 30)] = 100  # nothing there in truth
    truth[0, 39, 39] = 100  # one voxel is no piece
    counts = count_lesions(truth > 50, truth, image, image > 50)
    assert counts == {"pieces": 3, "kept": 1, "shrunk": 1, "erased": 1, "unseen": 0, "invented": 1}


def test_pieces_of_a_label_map_are_compared_by_their_contrast():
    noise = np.random.default_rng(0).normal(0, 1, SHAPE).astype(np.float32)
    truth, image, label = noise.copy(), noise.copy(), np.zeros(SHAPE, bool)
    fates = [(20, 19), (-20, -6), (20, 0), (10, -10), (0, 20)]
    for (there, made), place in zip(fates, ((2, 2), (2, 20), (20, 2), (20, 20), (30, 30))):
        label[at(*place)] = True
        truth[at(*place)] += there
        image[at(*place)] += made
    counts = count_lesions(label, truth, image)
    assert counts == {"pieces": 5, "kept": 1, "shrunk": 1, "erased": 2, "unseen": 1}
