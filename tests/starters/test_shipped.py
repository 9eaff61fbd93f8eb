"""The starters that come with the package: they are whole, small, trained on synthetic heads alone, and useful."""

import numpy as np
import pytest

from voxlate.images.grid import Volume
from voxlate.phantoms import Label, image, make_head
from voxlate.starters import names
from voxlate.starters.card import MOST_BYTES
from voxlate.synthesis.model import load
from voxlate.training.run import Run
from voxlate.training.starter import check_starter

SHIPPED = ("brain-mr-to-mr", "head-mr-to-ct", "head-tof-to-cta")


@pytest.fixture
def shipped(shipped_starters, monkeypatch):
    monkeypatch.setattr(names, "FOLDER", shipped_starters)
    return shipped_starters


def test_these_starters_are_shipped(shipped):
    assert names.installed() == list(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_starter_is_whole_small_and_says_what_it_was_trained_on(shipped, name):
    card = check_starter(shipped / name)
    assert card.trained_on == "synthetic heads only"
    assert Run(shipped / name).weights().stat().st_size == card.bytes <= MOST_BYTES
    assert card.measured, "no number on real scans"
    assert card.limits


@pytest.mark.parametrize(("modality", "case"), [("t1", 0), ("t2", 1)])
def test_the_ct_of_a_head_that_no_training_saw_is_better_than_any_constant(shipped, modality, case):
    head = make_head(987_654, case, (100, 120, 9), version=2)
    scan = Volume(image(head, modality)[None], head.affine, "a.u.", "mr")
    made = load("starter:head-mr-to-ct", "cpu").synthesise({"mr": scan})
    truth, ct = image(head, "ct"), made.volumes["ct"].data[0]
    body = head.labels != Label.AIR
    error = np.abs(ct - truth)[body].mean()
    constant = np.abs(np.median(truth[body]) - truth)[body].mean()
    assert error < 0.75 * constant
    bone = truth > 300
    found = ct > 300
    dice = 2 * (bone & found).sum() / (bone.sum() + found.sum())
    assert dice > 0.5
