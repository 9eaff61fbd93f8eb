"""The starters that come with the package: they are whole, small, trained on synthetic heads alone, and useful."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from voxlate.anatomy.mapped_head import make_head
from voxlate.anatomy.signal import image
from voxlate.anatomy.tissue import Label
from voxlate.base.files import file_hash
from voxlate.scans.images.grid import Volume
from voxlate.training.load import load
from voxlate.training.run import Run
from voxlate.training.starters import names
from voxlate.training.starters.card import MOST_BYTES, read_card
from voxlate.training.torch_network import open_run
from voxlate.training.weights import load_method, read_header

SHIPPED = ("brain-mr-to-mr", "head-mr-to-ct")


@pytest.fixture
def shipped(shipped_starters, monkeypatch):
    monkeypatch.setattr(names, "FOLDER", shipped_starters)
    return shipped_starters


def test_starters_are_whole_small_and_say_what_they_were_trained_on(shipped):
    assert names.starter_names() == [f"starter:{name}" for name in SHIPPED]
    for name in SHIPPED:
        load_method(shipped / name)
        card, run = read_card(shipped / name), Run(shipped / name)
        assert card.trained_on.startswith("synthetic heads")
        assert run.weights().stat().st_size == card.bytes <= MOST_BYTES
        assert card.measured, "no number on real scans"
        assert card.limits
        intervals = [] if card.intervals is None else [card.intervals.sha256]
        assert [file_hash(file) for file in run.calibrations] == intervals
        assert read_header(run.weights())["sha256"] == card.sha256
        sizes = [file.stat().st_size for file in run.calibrations]
        assert len(sizes) == (name == "head-mr-to-ct")
        assert max(sizes, default=0) < 100_000


def test_the_facts_beside_the_weights_of_a_starter_are_those_of_its_weights(shipped):
    """Where they are not: python benchmarks/starter_facts.py."""
    for name in SHIPPED:
        known = load(f"starter:{name}", for_check=True)
        assert known.network is None
        assert known.facts == open_run(shipped / name, "cpu", False, None).facts


def test_the_ct_of_a_head_that_no_training_saw_is_better_than_any_constant_and_in_its_intervals(
    shipped_starters,
):
    head = make_head(987_654, 4, (100, 120, 28))
    scan = Volume(image(head, "t2")[None], head.affine, "a.u.", "mr")
    made = load(shipped_starters / "head-mr-to-ct", "cpu").synthesise({"mr": scan})
    truth, ct, body = image(head, "ct"), made.volumes["ct"].data[0], head.labels != Label.AIR
    low, high = (ends["ct"].data[0][body] for ends in (made.low, made.high))
    inside = (low <= truth[body]) & (truth[body] <= high)
    assert inside.mean() > 0.88  # real heads made them wider than synthetic ones need
    assert np.median(high - low) < 1300, "of a range of 3000 HU"
    assert any(note.code == "synthetic-intervals" for note in made.warnings)
    constant = np.abs(np.median(truth[body]) - truth)[body].mean()
    assert np.abs(ct - truth)[body].mean() < 0.75 * constant
    bone, found = truth > 300, ct > 300
    assert (bone & found).sum() / (bone.sum() + found.sum()) > 0.25, "a Dice above 0.5"


def _brain(fluid=300, radii=(65, 80, 65)):
    """An ellipsoid, by default of 160 x 130 x 130 mm, in 3 mm voxels, with 3.5 ml of fluid in its middle."""
    places = np.indices((50, 64, 54)) * 3.0
    inside = sum(((p - c) / r) ** 2 for p, c, r in zip(places, (75, 96, 81), radii)) < 1
    # no plane is as another, and neighbours are alike
    detail = gaussian_filter(np.random.default_rng(0).normal(0, 2400, inside.shape), 2)
    values = np.where(inside, 400 + places[1] + detail, 0)
    values[23:27, 28:36, 25:29] = fluid
    return Volume(values[None].astype(np.float32), np.diag([3.0, 3.0, 3.0, 1.0]), "a.u.", "t1")


def test_a_stripped_brain_is_warned_about_by_the_starter_of_whole_heads_alone(shipped):
    head = load("starter:head-mr-to-ct", "cpu")
    said = codes(head, mr=_brain())
    assert "brain-alone" in said
    assert not said & {"shape", "body-size", "appearance"}, "which follow from that"
    brain = load("starter:brain-mr-to-mr", "cpu")
    assert not {"brain-alone", "whole-head"} & codes(brain, t1=_brain())


def codes(model, **scans):
    """The codes of what a model says about scans."""
    return {one.code for one in model.check(scans).messages}
