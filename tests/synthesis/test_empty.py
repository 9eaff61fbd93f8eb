"""Where every source is background, the image is: slices that training left out are not invented."""

from dataclasses import replace
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file
from scipy.ndimage import maximum_filter

from rows import every_row
from voxlate.base.executors.job import no_report
from voxlate.base.files import read_json
from voxlate.scans.cases.align import Preparation
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Grid, Volume, canonical, directions
from voxlate.scans.images.intensity import Scale
from voxlate.synthesis.calibration import widen
from voxlate.synthesis.empty import (
    background_of,
    empty_slices,
    find_empty_slices,
    unused_slices,
)
from voxlate.synthesis.ensemble import Ensemble
from voxlate.synthesis.intervals import OutputGrid
from voxlate.synthesis.model import Model, _unused_slices, predict_case
from voxlate.training.model import load

ABOVE = 4  # slices of air that are put above a head


def with_air(scan: Volume, value: float = 0.0) -> Volume:
    """A head with slices of one value above it."""
    air = np.full((1, ABOVE, *scan.data.shape[2:]), value, np.float32)
    return replace(scan, data=np.concatenate([scan.data, air], axis=1))


def with_noise(scan: Volume) -> Volume:
    """The noise of magnitude images everywhere."""
    draw, shape = np.random.default_rng(0), scan.data.shape
    real, imaginary = scan.data + draw.normal(0, 6, shape), draw.normal(0, 6, shape)
    return replace(scan, data=np.hypot(real, imaginary).astype(np.float32))


@pytest.fixture
def head(cohort) -> Volume:
    return read_volume(cohort / "case0" / "t1.nii.gz", "t1")


def near(scan: Volume) -> np.ndarray:
    """Voxels [D, H, W] within 5 mm of the head along each axis, of 3 x 2 x 2 mm."""
    return maximum_filter(canonical(scan).data[0] > 100, (3, 5, 5))


def of_filled_slices(model):
    """The model, as if its training had left out slices of less than 5 % of body."""
    data = replace(model.facts.data, foreground=0.05)
    return replace(model, facts=replace(model.facts, data=data))


def drawn(model, scans):
    """What the network says, of all slices."""
    images, _ = predict_case(model, model.check(scans).inputs, 0, no_report)
    return images["t2"].values


def test_slices_without_a_source_are_the_targets_background_and_no_voxel_near_the_head_changes(
    run, head
):
    model, scans = load(run), {"t1": with_air(head)}
    raw, made = drawn(model, scans), model.synthesise(scans)
    assert np.abs(raw[-ABOVE:]).max() > 100  # invented, of 1400
    assert (made.volume.data[0, -ABOVE:] == 0).all()
    own = model.synthesise({"t1": head}).volume.data[0]
    kept = near(head)
    image = canonical(made.volume).data[0, :-ABOVE]
    assert_array_equal(image[kept], raw[:-ABOVE][kept])
    assert_allclose(made.volume.data[0, :-ABOVE], own, atol=0.01)  # rounding of another batch
    assert (
        made.provenance["empty"]
        == {
            "slices": 4,
            "noise": 0,
            "slices_with_little_body": 0,  # every slice was in the training
            "voxels": 4 * 24 * 20 + int((image != raw[:-ABOVE]).sum()),
            "values": {"t2": 0.0},
        }
    )
    said = {one.code: one.numbers for one in made.warnings}
    assert said.keys() == {"empty-slices", "worse-than-naive"}
    assert said["empty-slices"]["slices"] == 4


def test_noise_alone_is_background_where_training_left_out_emptier_slices_and_is_kept_where_it_did_not(
    run, head
):
    model, scans = load(run), {"t1": with_noise(with_air(head))}
    learned_all = model.synthesise(scans)
    assert learned_all.provenance["empty"]["slices"] == 0
    left_out = of_filled_slices(model).synthesise(scans)
    assert (left_out.volume.data[0, -ABOVE:] == 0).all()
    well_filled = slice(1, -ABOVE - 1)  # the first and the last slice of the head hold little of it
    assert_array_equal(
        left_out.volume.data[0, well_filled], learned_all.volume.data[0, well_filled]
    )
    assert left_out.provenance["empty"]["noise"] == 4


@every_row("share", [0.002, 0.04, 0.2])
def test_a_slice_with_little_body_is_the_networks_near_the_body_and_background_away_from_it(
    run, head, share
):
    model, scan = load(run), with_air(head)
    edge = scan.data[0, -ABOVE]
    rows, columns = (np.arange(size)[:, None] - size // 2 for size in edge.shape)
    nearest = np.argsort((rows**2 + columns.T**2).ravel())[: max(1, round(share * edge.size))]
    edge.ravel()[nearest] = 600.0  # the tip of the head below it
    chosen = of_filled_slices(model)
    made = canonical(chosen.synthesise({"t1": scan}).volume).data[0]
    raw = drawn(chosen, {"t1": scan})
    body = canonical(scan).data[0] > 100
    little = (body.mean(axis=(1, 2)) < 0.1) & body.any(axis=(1, 2))
    assert little[-ABOVE] == (share < 0.1)
    close = near(scan)
    assert (made[~close & little[:, None, None]] == 0).all()
    kept = close[: 1 - ABOVE]
    assert_array_equal(made[: 1 - ABOVE][kept], raw[: 1 - ABOVE][kept])


def test_what_was_filled_in_slices_with_little_body_is_said_and_stated(run, head):
    made = of_filled_slices(load(run)).synthesise({"t1": head})
    assert made.provenance["empty"]["slices_with_little_body"] == 2
    assert made.provenance["empty"]["voxels"] == int((made.volume.data[0] == 0).sum())
    assert made.warnings[-1].numbers["little"] == 2


@pytest.mark.slow
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
    assert pair.provenance["empty"]["slices"] == ABOVE


def test_air_is_filled_on_the_grid_of_a_file_that_was_resampled(run, head):
    model, scan = load(run), with_air(head)
    preparation = Preparation(fixed="t1", resample=True, spacing_mm=(2.0, 2.0, 2.0))
    facts = replace(model.facts, preparation=preparation)
    made = replace(model, facts=facts).synthesise({"t1": scan})
    assert made.volume.grid == scan.grid
    assert (made.volume.data[0, 1 - ABOVE :] == 0).all()
    assert made.volume.data[0, :-ABOVE].max() > 100


@pytest.fixture
def other(voxlate, run, tmp_path, small_head, quick_widths) -> Volume:
    """A head that the training did not see, one of three on which the run is calibrated."""
    for number in range(3):
        small_head(tmp_path / "others" / f"new{number}", 100 + number)
    voxlate("calibrate", run, tmp_path / "others").done()
    return read_volume(tmp_path / "others" / "new0" / "t1.nii.gz", "t1")


@pytest.mark.slow
def test_intervals_are_closed_where_there_is_nothing(run, other):
    scan = with_air(other)
    made = load(run).synthesise({"t1": scan})
    for one in (made.low, made.high):
        assert (one["t2"].data[0, -ABOVE:] == 0).all()
    inside = slice(0, -ABOVE)
    assert (made.high["t2"].data[0, inside] > made.low["t2"].data[0, inside]).any()


@pytest.mark.slow
@every_row("spacing_mm", [None, (2.0, 2.0, 2.0), (4.5, 2.0, 2.0)])
def test_slices_that_decide_nothing_are_left_out_and_all_voxels_stay_as_they_are(
    run, other, monkeypatch, spacing_mm
):
    scan = with_air(with_air(with_air(other)))
    model = load(run).with_options(exact=True)
    if spacing_mm is not None:
        preparation = Preparation(fixed="t1", resample=True, spacing_mm=spacing_mm)
        model = replace(model, facts=replace(model.facts, preparation=preparation))
    without_bounds = widen(load(run).calibration(), {"t2": {"factor": 1.0, "heads": 2}})

    monkeypatch.setattr(Model, "calibration", lambda self: without_bounds)

    def synthesise():
        totals = set()
        made = model.synthesise({"t1": scan}, progress=lambda done, total: totals.add(total))
        return made, totals.pop()

    made, slices = synthesise()
    monkeypatch.setattr(
        "voxlate.synthesis.model.unused_slices", lambda empty, step: np.zeros_like(empty)
    )
    whole, all_slices = synthesise()
    assert slices < all_slices
    for name in ("volumes", "low", "high"):
        assert_array_equal(getattr(made, name)["t2"].data, getattr(whole, name)["t2"].data)
    assert made.provenance["empty"] == whole.provenance["empty"]


def test_slices_are_left_out_only_beyond_all_that_a_voxel_of_the_file_depends_on():
    empty = np.ones(12, bool)
    empty[5] = False
    assert np.flatnonzero(~unused_slices(empty, 1.0)).tolist() == [2, 3, 4, 5, 6, 7, 8]
    assert np.flatnonzero(~unused_slices(empty, 1.5)).tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert not unused_slices(empty, np.inf).any()
    # a sagittal file, 3 mm from head to feet where the network's slices are 2 mm apart
    file = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, -3, 0, 0], [0, 0, 0, 1.0]])
    affine = np.diag([1, 1, 2, 1.0])
    assert OutputGrid(affine, Grid((4, 4, 4), file), "SAR", {}).slices_per_step == 1.5
    turned = directions("RAS")
    turned[1:3, 1:3] = [[np.cos(0.05), -np.sin(0.05)], [np.sin(0.05), np.cos(0.05)]]
    assert OutputGrid(affine, Grid((4, 4, 4), turned), "SAR", {}).slices_per_step == np.inf


@pytest.mark.slow
def test_no_slice_is_left_out_where_bounds_peaks_or_surroundings_are_measured_in_all(
    by_percentiles, run
):
    model, empty = load(run), np.ones(20, bool)
    empty[0] = False
    grid = OutputGrid(np.eye(4), Grid((20, 4, 4), np.eye(4)), "SAR", {})
    assert _unused_slices(model.facts, empty, grid, None).any()
    bounded = SimpleNamespace(
        header=SimpleNamespace(targets={"t2": SimpleNamespace(bounds={"mae": 1.0})})
    )
    assert not _unused_slices(model.facts, empty, grid, bounded).any()
    assert not _unused_slices(by_percentiles.facts, empty, grid, None).any()
    of_peaks = model.with_options(peaks=True).facts
    assert not _unused_slices(of_peaks, empty, grid, None).any()


def test_a_source_that_shows_something_keeps_a_slice_that_another_does_not(run, cohort):
    model = load(run)
    data = replace(model.facts.data, source=["t1", "t2"], target=["ct"])
    facts = replace(model.facts, data=data)
    t1, t2 = (read_volume(cohort / "case0" / f"{name}.nii.gz", name) for name in ("t1", "t2"))
    t1, t2 = with_air(t1), with_air(t2)
    t2.data[0, -ABOVE, 8:16, 8:14] = 700
    prepared = load(run).check({"t1": t1}).inputs.prepared
    both = _two(prepared, t2)
    found = find_empty_slices(facts, both)
    assert empty_slices(facts, both, None, {}, found).entry["slices"] == 3


def _two(prepared, t2):
    """A prepared case with a second scan on its grid, laid out as the first."""
    header = prepared.header
    told = replace(
        header,
        units={**header.units, "t2": "a.u."},
        statistics={**header.statistics, "t2": header.statistics["t1"]},
        origins={**header.origins, "t2": header.origins["t1"]},
    )
    return replace(prepared, header=told, arrays={**prepared.arrays, "t2": canonical(t2).data[0]})


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
    assert background_of(scale, unit, known) == value


def test_a_run_keeps_the_background_of_its_targets(run):
    assert load(run).anatomy.backgrounds == {"t2": 0.0}


def test_images_of_trainings_that_showed_more_than_their_sources_keep_what_is_around_the_body(
    run, head
):
    model = load(run)
    assert model.anatomy.beyond == {"t2": 0.0}
    brains = replace(model, anatomy=replace(model.anatomy, beyond={"t2": 0.4}))
    scans = {"t1": head}
    image = canonical(brains.synthesise(scans).volume).data[0]
    assert_array_equal(image, drawn(model, scans))
    assert (canonical(model.synthesise(scans).volume).data[0] != image).any()


def test_the_same_train_command_adds_that_file_where_it_is_absent_and_trains_nothing(
    voxlate, run, tiny, prepared
):
    path, weights = run / "anatomy.safetensors", (run / "weights.safetensors").read_bytes()
    before = load_file(path)
    path.unlink()
    voxlate("train", tiny, "--data", prepared, "--out", run).done()
    after = load_file(
        path
    )  # the bytes of the file differ, because the order of its header's entries is random
    assert {name: one.tobytes() for name, one in after.items()} == {
        name: one.tobytes() for name, one in before.items()
    }
    assert (run / "weights.safetensors").read_bytes() == weights


def test_a_run_without_that_file_fills_air_as_well_and_says_once_that_it_checks_nothing(
    voxlate, run, head, out, tmp_path
):
    (run / "anatomy.safetensors").unlink()
    for name in ("a", "b"):
        scan = with_air(head)
        (tmp_path / "new" / name).mkdir(parents=True)
        image = nib.Nifti1Image(scan.data[0].T, scan.affine)
        nib.save(image, tmp_path / "new" / name / "t1.nii.gz")
    answer = voxlate("synth", run, tmp_path / "new", "--out", out).done()
    assert answer.err.count("are not checked") == 1
    assert answer.err.count("4 of 10 slices show") == 1  # for both cases
    for name in ("a", "b"):
        assert read_json(out / name / "provenance.json")["empty"]["slices"] == ABOVE
    assert "empty" not in read_json(out / "provenance.json")


@pytest.fixture
def by_percentiles(trained, tiny):
    """A run whose scales begin at a percentile of the body, above the background, and whose network knows the air."""
    percentile = 't1 = { kind = "percentile" }, t2 = { kind = "percentile" }'
    windows = tiny.read_text().partition("intensity = { ")[2].partition(" }\nmethod")[0]
    text = tiny.read_text().replace(windows, percentile)
    rate = "steps = 40, optimiser = { lr = 1e-2, warm_up = 0 }"
    text = text.replace("steps = 6", rate).replace("validate_every = 3", "validate_every = 0")
    return load(trained("percentiles", text))


def test_around_a_stripped_brain_the_image_is_0_and_not_its_darkest_tissue(by_percentiles, head):
    low, _ = by_percentiles.facts.target_scales["t2"]
    assert low > 100
    raw = drawn(by_percentiles, {"t1": head})
    made = by_percentiles.synthesise({"t1": head})
    image = canonical(made.volume).data[0]
    around = canonical(head).data[0] == 0
    assert 0.3 < around.mean() < 0.9
    assert (image[around] == 0).all()
    assert_array_equal(image[~around], raw[~around])
    assert made.provenance["empty"]["surroundings"] == {"t2": int(around.sum())}


def test_a_hole_within_a_stripped_brain_stays_as_the_network_makes_it(by_percentiles, head):
    data = head.data.copy()
    middle = tuple(size // 2 for size in data.shape[1:])
    data[0][middle] = 0
    scans = {"t1": replace(head, data=data)}
    image = canonical(by_percentiles.synthesise(scans).volume).data[0]
    hole = canonical(scans["t1"]).data[0] == 0
    around = canonical(head).data[0] == 0
    inside = hole & ~around
    assert inside.sum() == 1
    assert_array_equal(image[inside], drawn(by_percentiles, scans)[inside])
    assert (image[around] == 0).all()


def test_bone_that_is_0_and_meets_the_air_is_the_networks_where_it_is_bright(by_percentiles, head):
    data = head.data.copy()
    middle = tuple(size // 2 for size in data.shape[2:])
    data[0][:, middle[0], middle[1]] = 0  # from the air below to that above
    scan = replace(head, data=data)
    prepared = by_percentiles.check({"t1": scan}).inputs.prepared
    whole = by_percentiles.check({"t1": head}).inputs  # beside which the network makes no light
    raw, _ = predict_case(by_percentiles, whole, 0, no_report)
    within = prepared.outline("t1") & (prepared.volume("t1").data[0] == 0)
    assert within.any()
    values = raw["t2"].values.copy()
    values[within] = values.max()
    found = find_empty_slices(by_percentiles.facts, prepared)
    images = {"t2": replace(raw["t2"], values=values)}
    empty = empty_slices(by_percentiles.facts, prepared, by_percentiles.anatomy, images, found)
    assert "surroundings" in empty.entry
    assert_array_equal(empty.fill(images)["t2"].values[within], values.max())


def test_noise_in_the_air_a_skull_in_the_image_and_windows_leave_the_image_alone(
    by_percentiles, run, head
):
    scans = {"t1": with_noise(head)}
    made = by_percentiles.synthesise(scans)
    assert "surroundings" not in made.provenance["empty"]
    kept = canonical(head).data[0] > 0
    assert_array_equal(canonical(made.volume).data[0][kept], drawn(by_percentiles, scans)[kept])
    raw, _ = predict_case(by_percentiles, by_percentiles.check({"t1": head}).inputs, 0, no_report)
    bright = raw["t2"].values.copy()
    bright[:, :8] = bright.max()  # as a scalp around the brain
    shown = {"t2": replace(raw["t2"], values=bright)}
    prepared = by_percentiles.check({"t1": head}).inputs.prepared
    own = by_percentiles
    specs = {name: replace(spec, floor=0.0) for name, spec in own.facts.intensity.items()}
    from_0 = replace(own.facts, intensity=specs)
    for facts, images, filled in (
        (own.facts, raw, True),
        (own.facts, shown, False),
        (from_0, raw, True),
    ):
        found = find_empty_slices(facts, prepared)
        empty = empty_slices(facts, prepared, own.anatomy, images, found)
        assert ("surroundings" in empty.entry) == filled
    windows = load(run)
    made = windows.synthesise({"t1": head})
    assert "surroundings" not in made.provenance["empty"]
    assert_array_equal(canonical(made.volume).data[0][kept], drawn(windows, {"t1": head})[kept])
