"""What is outside of the body of all sources is background: slices that training left out are not invented."""

import re
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import maximum_filter

from rows import every_row, slow
from voxlate.base.executors.case_work import no_report
from voxlate.scans.cases.align import Preparation
from voxlate.scans.formats.io import read_volume, write_volume
from voxlate.scans.images.grid import Grid, Volume, canonical
from voxlate.scans.images.intensity import Scale, Window
from voxlate.synthesis.intervals import Background, OutputGrid, Outside, find_outside
from voxlate.synthesis.model import Ensemble
from voxlate.synthesis.sampling import predict_case
from voxlate.training.load import load
from voxlate.training.run import Run

ABOVE = 4  # slices of air that are put above a head


def with_air(scan, value=0.0):
    """A head with slices of one value above it."""
    air = np.full((1, ABOVE, *scan.data.shape[2:]), value, np.float32)
    return replace(scan, data=np.concatenate([scan.data, air], axis=1))


def with_noise(scan):
    """The noise of magnitude images everywhere."""
    draw, shape = np.random.default_rng(0), scan.data.shape
    real, imaginary = scan.data + draw.normal(0, 6, shape), draw.normal(0, 6, shape)
    return replace(scan, data=np.hypot(real, imaginary).astype(np.float32))


@pytest.fixture
def head(cohort):
    return read_volume(cohort / "case0/t1.nii.gz", "t1")


def inputs_of(model, scan):
    return model.check({"t1": scan})


def drawn(model, scan):
    """What the network says, of all slices."""
    images, _ = predict_case(model.facts, model.network, inputs_of(model, scan), 0, no_report)
    return images["t2"].values


def made_of(model, scan, **options):
    """The synthesis of a scan, and its image as the network's axes have it."""
    made = model.synthesise({"t1": scan}, **options)
    return made, canonical(made.volume).data[0]


def test_slices_without_a_source_are_the_targets_background_and_no_voxel_of_the_head_changes(
    run, head
):
    model, scan = load(run), with_air(head)
    assert model.anatomy.backgrounds == {"t2": 0.0}
    raw, (made, image) = drawn(model, scan), made_of(model, scan)
    assert np.abs(raw[-ABOVE:]).max() > 100  # invented, of 1400
    assert (image[-ABOVE:] == 0).all()
    inside = slice(-ABOVE)
    body = inputs_of(model, head).prepared.outline("t1")
    assert_array_equal(image[inside][body], raw[inside][body])
    own = model.synthesise({"t1": head}).volume.data[0]
    assert_allclose(made.volume.data[0, inside], own, atol=0.01)  # rounding of another batch
    said = {one.code: one.numbers for one in made.warnings}
    assert said.keys() == {"worse-than-naive"}


def test_a_slice_with_little_body_is_the_networks_near_the_body_and_background_away_from_it(
    run, head
):
    scan = with_noise(with_air(head))
    scan.data[0, -ABOVE, 8:12, 8:12] = 600.0  # the tip of the head below it
    model = load(run)
    _, image = made_of(model, scan)
    body = inputs_of(model, scan).prepared.outline("t1")
    assert body[-ABOVE].any()
    kept = maximum_filter(body, (3, 5, 5)) & body.any((1, 2), keepdims=True)
    assert_array_equal(image[kept], drawn(model, scan)[kept])
    assert (image[~kept] == 0).all()


def test_air_is_filled_on_the_grid_of_a_file_that_was_resampled(run, head):
    scan = with_air(head)
    made = spaced(load(run), (2.0, 2.0, 2.0)).synthesise({"t1": scan})
    assert made.volume.grid == scan.grid
    assert (made.volume.data[0, 1 - ABOVE :] == 0).all()
    assert made.volume.data[0, :-ABOVE].max() > 100


def spaced(model, spacing_mm):
    """The model, as if scans were resampled to a spacing."""
    preparation = Preparation(fixed="t1", resample=True, spacing_mm=spacing_mm)
    return replace(model, facts=replace(model.facts, preparation=preparation))


@slow
def test_intervals_are_closed_where_there_is_nothing(
    voxlate, run, tmp_path, small_head, quick_widths
):
    for number in range(3):
        small_head(tmp_path / f"others/new{number}", 100 + number)
    voxlate("calibrate", run, tmp_path / "others").done()
    unseen = read_volume(tmp_path / "others/new0/t1.nii.gz", "t1")
    made = load(run).synthesise({"t1": with_air(unseen)})
    low, high = (one["t2"].data[0] for one in (made.low, made.high))
    assert (low[-ABOVE:] == 0).all()
    assert (high[-ABOVE:] == 0).all()
    assert (high[:-ABOVE] > low[:-ABOVE]).any()


@every_row("margin", [0, 3])
def test_beside_the_body_the_intervals_of_a_ct_end_at_skin_also_where_no_voxel_is_background(
    margin,
):
    """A scan that is cut on all sides has no voxel farther from the body than that."""
    shape = (3, 20 + 2 * margin, 20)
    affine = np.eye(4)
    grid = OutputGrid(affine, Grid(shape, affine), "SAR", {"ct": "HU"})
    body = np.zeros(shape, bool)
    body[:, 4 : 16 + 2 * margin, 4:16] = True
    background = Background({"ct": np.zeros(shape, bool)}, ~body, {"ct": -1000.0})
    ct, low, high = (
        Volume(np.full((1, *shape), value, np.float32), affine, "HU", "ct")
        for value in (0, -1000, 900)
    )
    closed = background.close(ct, low, high, grid)
    assert (closed[1].data[0][~body] == 200).all()
    assert (closed[1].data[0][body] == 900).all()
    assert_array_equal(closed[0].data, low.data)


def test_a_source_that_shows_something_keeps_a_slice_that_another_does_not(run, cohort):
    model = load(run)
    data = replace(model.facts.data, source=["t1", "t2"], target=["ct"])
    facts = replace(model.facts, data=data)
    t1, t2 = (with_air(read_volume(cohort / f"case0/{name}.nii.gz", name)) for name in ("t1", "t2"))
    t2.data[0, -ABOVE, 8:16, 8:14] = 700
    prepared = inputs_of(model, t1).prepared
    # a second scan on its grid, laid out as the first
    tables = ("units", "statistics", "origins")
    values = {name: getattr(prepared.header, name) for name in tables}
    two = {name: {**table, "t2": table["t1"]} for name, table in values.items()}
    arrays = {**prepared.arrays, "t2": canonical(t2).data[0]}
    both = replace(prepared, header=replace(prepared.header, **two), arrays=arrays)
    assert find_outside(both, facts.visible_sources(both)).slices.sum() == 3


@every_row(
    "unit, known, scale, value",
    [
        ("a.u.", None, Scale(0, 1400), 0),
        ("HU", None, Scale(-1024, 2000), -1000),
        ("HU", -1024.0, Scale(-1024, 2000), -1024),
        ("HU", None, Scale(-150, 250), -150),
        ("a.u.", -0.8, Scale(-3, 3), -0.8),
        ("a.u.", None, Scale(-3, 3), -3),
    ],
)
def test_background_is_air_as_the_training_had_it_as_far_as_images_reach(unit, known, scale, value):
    outside = Outside(*[np.zeros((1, 1, 1), bool)] * 3, is_zero=False)
    assert outside.value(scale, Window(low=0, high=1), unit, known) == value


def test_images_of_trainings_that_showed_more_than_their_sources_keep_what_is_around_the_body(
    run, head
):
    model = load(run)
    assert model.anatomy.beyond == {"t2": 0.0}
    brains = replace(model, anatomy=replace(model.anatomy, beyond={"t2": 0.4}))
    _, image = made_of(brains, head)
    assert_array_equal(image, drawn(model, head))
    assert (made_of(model, head)[1] != image).any()


def test_a_run_without_that_file_fills_air_as_well_and_says_once_that_it_checks_nothing(
    synth, run, head, out, tmp_path
):
    Run(run).anatomy.unlink()
    for name in ("a", "b"):
        write_volume(tmp_path / "new" / name / "t1.nii.gz", with_air(head))
    said = synth(run, tmp_path / "new").done().err
    assert said.count("are not checked") == 1
    for name in ("a", "b"):
        assert (canonical(read_volume(out / name / "t2.nii.gz")).data[0, -ABOVE:] == 0).all()


@pytest.fixture
def by_percentiles(trained, tiny):
    """A run whose scales begin at a percentile of the body, above the background, and whose network knows the air."""
    percentile = 't1 = { kind = "percentile" }, t2 = { kind = "percentile" }'
    text = re.sub("(?<=intensity = { ).*(?= }\n)", percentile, tiny.read_text())
    rate = "steps = 40, optimiser = { lr = 1e-2, warm_up = 0 }"
    text = text.replace("steps = 6", rate).replace("validate_every = 3", "validate_every = 0")
    return load(trained("percentiles", text))


def test_where_all_sources_are_0_the_image_is_0_up_to_the_body_and_not_its_darkest_tissue(
    by_percentiles, head
):
    low, _ = by_percentiles.facts.target_scales["t2"]
    assert low > 100
    _, _, height, width = head.data.shape
    head.data[0, :, height // 2, width // 2] = (
        0  # within the outline, from the air below to that above
    )
    body = inputs_of(by_percentiles, head).prepared.outline("t1")
    _, image = made_of(by_percentiles, head)
    assert (image[~body] == 0).all()
    assert_array_equal(image[body], drawn(by_percentiles, head)[body])


@slow
def test_samples_do_not_differ_where_there_is_nothing_and_neither_do_members_of_an_ensemble(
    diffusion, run, head
):
    scans = {"t1": with_air(head)}
    made = load(diffusion).synthesise(scans, samples=2)
    assert (made.std["t2"].data[0, -ABOVE:] == 0).all()
    assert (made.std["t2"].data[0, :-ABOVE] > 0).any()
    pair = Ensemble((load(run), load(diffusion))).synthesise(scans)
    assert (pair.volume.data[0, -ABOVE:] == 0).all()
    assert (pair.std["t2"].data[0, -ABOVE:] == 0).all()
