"""A synthesised CT in HU against pictures of CT slices: known answers of a ramp of HU."""

import numpy as np
import pytest
from PIL import Image

from made_pictures import write_pictures
from made_volumes import save
from preparing import prepare
from refusals import refuses
from rows import every_row
from voxlate.base.files import read_json, write_json
from voxlate.evaluation.reports.case_pictures import read_case
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.scans.formats.io import content_hash, read_volume
from voxlate.scans.images.grid import canonical
from voxlate.scans.images.ranges import range_for
from voxlate.training.naive import fit
from voxlate.training.verdict import SYNTHESIS

RAMP_HU = np.linspace(-40, 120, 33 * 32).reshape(32, 33)


@pytest.fixture
def folders(tmp_path):
    """A picture that shows -10 to 90 HU of a ramp, and the ramp itself as it is synthesised in HU."""
    grey = np.rint(np.clip((RAMP_HU + 10) / 100, 0, 1) * 255).astype(np.uint8)
    truth, out = tmp_path / "truth/a", tmp_path / "out/a"
    truth.mkdir(parents=True)
    for name in ("ct", "mr"):
        Image.fromarray(grey).save(truth / f"{name}.png")
    picture = read_volume(truth / "ct.png", "ct")
    save(out / "ct.nii.gz", RAMP_HU[None], affine=picture.affine)
    network = {"map": {"kind": "window", "low": -1000, "high": 2000}, "low": -1000, "high": 2000}
    stated = {"case": "a", "units": {"ct": "HU"}, "range": {"ct": [-1000, 2000]}}
    write_json(out / "provenance.json", {**stated, "network_units": {"ct": network}})
    return tmp_path / "out", tmp_path / "truth"


def test_the_window_of_the_brain_is_assumed_of_a_picture_and_said(folders):
    scores = evaluate(*folders)
    assert scores.parts["ct"]["range"] == [0, 255]
    shown, assumed = np.clip((RAMP_HU + 10) / 100, 0, 1), np.clip(RAMP_HU / 80, 0, 1)
    expected = np.abs(shown - assumed).mean()
    assert scores.rows[0].scores["mae_rel"] == pytest.approx(expected, abs=0.002)
    assert "0 to 80 HU" in scores.header["moved"]["a/ct"]


def test_the_window_that_a_prepared_cohort_states_is_that_of_its_pictures(folders, tmp_path):
    cohort = write_pictures(tmp_path / "pictures", [(0, 80)] * 3, slices=1)
    options = {"shares": (2, 1, 0), "window": (-10, 90), "audit": False}
    prepare(cohort, tmp_path / "prepared", **options)
    out, truth = folders
    scores = evaluate(out, truth, prepared=tmp_path / "prepared")
    assert scores.rows[0].scores["mae"] == pytest.approx(0, abs=0.5), "grey levels are rounded"
    assert scores.header["windows"] == {"a/ct": (-10.0, 90.0)}
    assert "-10 to 90 HU" in scores.header["moved"]["a/ct"]


def test_pictures_of_a_report_show_an_image_in_the_unit_of_its_truth(folders):
    out, _ = folders
    header = evaluate(*folders).header
    images = {image.role: image for image in read_case(out, header, "a", "ct").images}
    synthesis = images["synthesis"].slices["axial"]
    shown = np.clip(RAMP_HU / 80, 0, 1) * 255
    np.testing.assert_allclose(np.sort(synthesis.ravel()), np.sort(shown.ravel()), atol=0.1)
    assert images["synthesis"].scale == images["truth"].scale
    assert np.abs(images["error"].slices["axial"]).max() < 0.2 * 255


def test_baselines_of_pictures_are_not_put_through_the_window_whatever_the_model_calls_its_input(
    folders,
):
    out, truth = folders
    place, source = out / "a/provenance.json", truth / "a/mr.png"
    inputs = {"scan": {"path": f"{source}", "sha256": content_hash(source)}}
    write_json(place, read_json(place) | {"inputs": inputs})
    names = ("ct", "mr")
    pictures = {name: canonical(read_volume(truth / f"a/{name}.png", name)) for name in names}
    ranges = dict.fromkeys(names, range_for("grey", 255))
    learned = fit([(pictures, None)], ["mr"], ["ct"], ranges)
    rows = evaluate(*folders, naive=learned).rows
    errors = {row.method: row.scores["mae"] for row in rows if row.method != SYNTHESIS}
    methods = ("mean image", "copy of mr", "intensity table")
    assert errors == pytest.approx(dict.fromkeys(methods, 0), abs=0.5)


@every_row(
    ("options", "named"),
    [
        ({"value_range": (0, 80)}, "--value-range"),
        ({"units": "network"}, "--units network"),
    ],
)
def test_other_ranges_and_units_than_the_windows_are_refused(folders, options, named):
    with refuses(named):
        evaluate(*folders, **options)


def test_no_letters_name_the_sides_of_pictures_whose_left_is_a_guess(folders):
    out, truth = folders
    header = {"truth_files": {"a/ct": str(truth / "a/ct.png")}}
    assert read_case(out, {}, "a", "ct").oriented
    assert not read_case(out, header, "a", "ct").oriented
