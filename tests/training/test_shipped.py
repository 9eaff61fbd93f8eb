"""The starters that come with the package: they are whole, small, trained on synthetic heads alone, and useful."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import voxlate
from voxlate.anatomy.head import make_head
from voxlate.anatomy.scanner import image
from voxlate.anatomy.tissue import Label
from voxlate.scans.images.grid import Volume
from voxlate.training.model import load
from voxlate.training.run import Run
from voxlate.training.starter import check_starter
from voxlate.training.starters import names
from voxlate.training.starters.card import MOST_BYTES, read_card

SHIPPED = ("brain-mr-to-mr", "head-mr-to-ct", "head-tof-to-cta-experimental")


@pytest.fixture
def shipped(shipped_starters, monkeypatch):
    monkeypatch.setattr(names, "FOLDER", shipped_starters)
    return shipped_starters


def test_these_starters_are_shipped(shipped):
    assert names.starter_names() == list(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_starter_is_whole_small_and_says_what_it_was_trained_on(shipped, name):
    check_starter(shipped / name)
    card = read_card(shipped / name)
    assert card.trained_on.startswith("synthetic heads only")
    assert Run(shipped / name).weights().stat().st_size == card.bytes <= MOST_BYTES
    assert card.measured, "no number on real scans"
    assert card.limits


def test_the_starter_of_ct_alone_brings_intervals_that_few_bytes_hold(shipped):
    with_intervals = {name: [*Run(shipped / name).calibrations] for name in SHIPPED}
    (file,) = with_intervals.pop("head-mr-to-ct")
    assert file.stat().st_size < 100_000
    assert not any(with_intervals.values())


@pytest.fixture(scope="module")
def head():
    """A head that no training saw."""
    return make_head(987_654, 4, (100, 120, 9))


@pytest.fixture(scope="module")
def made(head, shipped_starters):
    """The CT that the starter makes of the head's T2."""
    scan = Volume(image(head, "t2")[None], head.affine, "a.u.", "mr")
    return load(shipped_starters / "head-mr-to-ct", "cpu").synthesise({"mr": scan})


def test_the_intervals_of_a_head_that_no_training_saw_contain_most_of_its_ct(head, made):
    truth, body = image(head, "ct"), head.labels != Label.AIR
    low, high = (ends["ct"].data[0][body] for ends in (made.low, made.high))
    inside = (low <= truth[body]) & (truth[body] <= high)
    assert 0.75 < inside.mean() < 0.99
    assert np.median(high - low) < 700, "of a range of 3000 HU"
    assert any(note.code == "synthetic-intervals" for note in made.warnings)


def test_the_ct_of_a_head_that_no_training_saw_is_better_than_any_constant(head, made):
    truth, ct = image(head, "ct"), made.volumes["ct"].data[0]
    body = head.labels != Label.AIR
    error = np.abs(ct - truth)[body].mean()
    constant = np.abs(np.median(truth[body]) - truth)[body].mean()
    assert error < 0.75 * constant
    bone = truth > 300
    found = ct > 300
    dice = 2 * (bone & found).sum() / (bone.sum() + found.sum())
    assert dice > 0.5


def _brain(fluid: float, radii: tuple[int, ...] = (65, 80, 65)) -> Volume:
    """An ellipsoid, by default of 160 x 130 x 130 mm, in 3 mm voxels, with 3.5 ml of fluid in its middle."""
    places = np.indices((50, 64, 54)) * 3.0
    inside = sum(((p - c) / r) ** 2 for p, c, r in zip(places, (75, 96, 81), radii)) < 1
    # no plane is as another, and neighbours are alike
    detail = gaussian_filter(np.random.default_rng(0).normal(0, 2400, inside.shape), 2)
    values = np.where(inside, 400 + places[1] + detail, 0)
    values[23:27, 28:36, 25:29] = fluid
    return Volume(values[None].astype(np.float32), np.diag([3.0, 3.0, 3.0, 1.0]), "a.u.", "t1")


def test_a_stripped_brain_is_warned_about_by_the_starter_of_whole_heads_alone(shipped):
    head = load("starter:head-mr-to-ct", "cpu").check({"mr": _brain(300)}).inputs
    assert "brain-alone" in {one.code for one in head.warnings}
    brain = load("starter:brain-mr-to-mr", "cpu").check({"t1": _brain(300)}).inputs
    assert not {"brain-alone", "whole-head"} & {one.code for one in brain.warnings}


@pytest.mark.parametrize(
    ("name", "source", "target", "cut"),
    [
        ("brain-mr-to-mr", "t1", "t2", np.s_[:, 22:24]),
        pytest.param(
            *("head-tof-to-cta-experimental", "tof", "cta"),
            np.s_[:, 22:24, 30:42, 20:34],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_air_beside_a_body_changes_no_voxel_of_its_image(shipped, name, source, target, cut):
    model, brain = load(f"starter:{name}", "cpu"), _brain(300)
    slab = replace(brain, data=brain.data[cut], modality=source)
    wider = replace(slab, data=np.pad(slab.data, ((0, 0), (0, 0), (0, 9), (0, 20))))
    alone, in_air = (
        model.synthesise({source: one}, anyway=True).volumes[target].data for one in (slab, wider)
    )
    np.testing.assert_array_equal(in_air[:, :, :-9, :-20], alone)


@pytest.mark.slow
def test_each_scan_of_a_brain_is_asked_how_it_lies(shipped):
    turned = _brain(300, (65, 65, 78))  # wider than long
    said = load("starter:brain-mr-to-mr", "cpu").check({"t1": _brain(300), "flair": turned})
    assert "axes-exchanged" in {one.code for one in said.messages}


@pytest.mark.slow
def test_a_flair_whose_sides_differ_is_named_as_lopsided(shipped):
    flair = _brain(300)
    flair.data[0, 18:28, 28:38, 32:42] = 900
    checked = load("starter:brain-mr-to-mr", "cpu").check({"flair": flair})
    assert "lopsided" in {one.code for one in checked.messages}


@pytest.mark.slow
def test_fluid_as_dark_as_air_is_warned_about_where_t2_or_pd_is_made(shipped):
    model = load("starter:brain-mr-to-mr", "cpu")

    def warned(model, **scans):
        warnings = model.check(scans).messages
        return [one.text for one in warnings if one.code == "dark-fluid"]

    assert not warned(model, t1=_brain(0)), "data.lift tells the fluid from air"
    facts = replace(model.facts, data=replace(model.facts.data, lift=0.0))
    model = replace(model, facts=facts)
    (sentence,) = warned(model, t1=_brain(0))
    # of 3.5 ml, because the finer voxels of the starter blur its surface
    assert 2 < float(sentence.removeprefix("t1: ").split(" ml")[0]) < 3.5
    assert warned(model.with_only(["t2"]), t1=_brain(0))
    assert not warned(model.with_only(["flair"]), t1=_brain(0))
    assert not warned(model, t1=_brain(300))


@pytest.mark.slow
def test_a_starter_has_the_licence_of_voxlate_where_none_is_stated(shipped, tmp_path):
    for licence in ("Apache-2.0", "MIT"):
        stated = {} if licence == "Apache-2.0" else {"licence": licence}
        folder = tmp_path / licence
        voxlate.push(
            "starter:head-tof-to-cta-experimental", "me/model", dry_run=folder, onnx=False, **stated
        )
        assert f'license: "{licence.lower()}"' in (folder / "README.md").read_text()
