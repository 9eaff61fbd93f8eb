"""The window of Hounsfield units that pictures of CT show, as prepare states it."""

import json
from dataclasses import replace

import pytest

from made_pictures import write_pictures
from preparing import prepare
from refusals import refuses
from rows import every_row
from voxlate.scans.cases.prepared import Cohort, open_cohort
from voxlate.scans.images.ranges import assumed_window

WINDOWS = [(0, 80), (-10, 70), (5, 85)]
SHARES = (2, 1, 0)


@pytest.fixture
def pictures(tmp_path):
    """A cohort of pictures of three patients."""
    return write_pictures(tmp_path / "pictures", WINDOWS, slices=1)


def test_pictures_of_heads_are_assumed_to_show_the_window_of_the_brain_and_this_is_said(
    pictures, tmp_path
):
    cohort = prepare(pictures, tmp_path / "prepared", shares=SHARES, audit=False)
    assert cohort.units["ct"] == "grey"
    assert cohort.windows == {"ct": (0.0, 80.0)}
    said = [one for one in cohort.warnings if one.code == "assumed" and "0 to 80 HU" in one.text]
    assert [one.grade for one in said] == ["note"]
    assert open_cohort(tmp_path / "prepared").windows == cohort.windows


def test_a_window_that_is_stated_is_kept_and_no_longer_assumed(voxlate, pictures, tmp_path):
    out = tmp_path / "prepared"
    command = ("prepare", pictures, "--out", out, "--window", -20, 100, "--shares", 2, 1, 0)
    answer = voxlate(*command).done()
    assert open_cohort(out).windows == {"ct": (-20.0, 100.0)}
    assert "HU from black" not in answer.err
    voxlate(*command).done()  # the same call resumes
    assert "window" in voxlate(*command[:4], "--shares", 2, 1, 0).refusal


def test_a_cohort_of_an_earlier_version_shows_the_assumed_window(pictures, tmp_path):
    folder = tmp_path / "prepared"
    prepare(pictures, folder, shares=SHARES, audit=False)
    cohort = open_cohort(folder)
    del cohort.provenance["window"]
    assert cohort.windows == {"ct": (0.0, 80.0)}
    assert prepare(pictures, folder, shares=SHARES, audit=False).windows == cohort.windows


@every_row(
    "ends", [(80, 0), (0, 0), (float("nan"), 80), (0, float("inf")), (5000, 9000), (-3000, 0)]
)
def test_ends_of_a_window_in_another_order_or_that_no_ct_has_are_refused(pictures, tmp_path, ends):
    with refuses():
        prepare(pictures, tmp_path / "prepared", window=ends)


def test_a_window_without_pictures_of_ct_is_refused(cohort, tmp_path):
    with refuses("--window"):
        prepare(cohort, tmp_path / "other", window=(0, 80), audit=False)


def test_other_scans_than_pictures_of_ct_have_no_window(prepared):
    assert open_cohort(prepared).windows == {}


@every_row("window", ["wide", [80], [80, 0], ["a", "b"], [0, None]])
def test_a_record_with_another_window_than_two_numbers_is_refused(prepared, window):
    cohort = open_cohort(prepared)
    changed = json.loads(json.dumps(cohort.provenance | {"window": window}))
    cohort.provenance.update(changed)
    with refuses("cohort.json"):
        _ = cohort.windows


@every_row(
    "modality, is_head, window",
    [
        ("ct", True, (0.0, 80.0)),
        ("cta", True, (0.0, 200.0)),
        ("ct", False, (-160.0, 240.0)),
    ],
)
def test_the_assumed_window_is_that_of_the_body(modality, is_head, window):
    assert assumed_window(modality, is_head) == window


@every_row(
    "box, window", [(((0, 190), (0, 150)), (0.0, 80.0)), (((0, 230), (0, 350)), (-160.0, 240.0))]
)
def test_bodies_of_pictures_are_told_by_their_outline_whatever_the_number_of_pixels(
    pictures, tmp_path, monkeypatch, box, window
):
    """Pictures have no voxel size: a head of 512 pixels is as wide as a trunk of 512 pixels."""
    cohort = prepare(pictures, tmp_path / "prepared", shares=SHARES, audit=False)
    for factor in (1, 3):
        sides = [(0, 1), *(tuple(factor * end for end in ends) for ends in box)]
        header = replace(cohort.header(cohort.cases[0].case), mask_box=sides)
        monkeypatch.setattr(Cohort, "_header", lambda *_, header=header: header)
        assert open_cohort(cohort.folder).windows == {"ct": window}
