"""`synth --contrast-of`: images get the levels of fluid and both tissues in a scan of the site."""

import shutil
from dataclasses import astuple, replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import voxlate as package
from brains import brain, tissues
from refusals import refuses
from rows import every_row, slow
from scans import change_scan
from voxlate.base.executors.job import no_report
from voxlate.base.files import read_json
from voxlate.evaluation.calibrate import calibrate
from voxlate.scans.formats.io import content_hash, read_volume, write_volume
from voxlate.scans.images.tissue_levels import find_levels
from voxlate.synthesis import model as synthesis
from voxlate.synthesis.calibration import Prediction
from voxlate.synthesis.ensemble import Ensemble
from voxlate.training.run import Run

T1 = (150, 550, 700)  # fluid, grey, white
MADE = (900, 600, 450)  # in the synthesised T2
OF_SITE = (3000, 1000, 800)
SD = 35.0


@pytest.fixture
def scan(tmp_path):
    """A T1 of the brain."""
    return write(tmp_path / "patient/t1.nii.gz", T1)


@pytest.fixture
def run(run):
    """A model that does not compare the brain with the small heads of its training."""
    Run(run).anatomy.unlink()
    return run


@pytest.fixture
def diffusion(diffusion):
    """The same of a model that draws samples."""
    Run(diffusion).anatomy.unlink()
    return diffusion


@pytest.fixture
def site(tmp_path):
    """A T2 of the site."""
    return write(tmp_path / "site/t2.nii.gz", OF_SITE)


def write(path, levels, **changes):
    """The brain with a wider ventricle than the patient's, unless it is the patient's, as a file."""
    ventricle = 0.2 if path.parent.name == "patient" else 0.3
    write_volume(path, brain(*levels, ventricle=ventricle, name=path.name.split(".")[0], **changes))
    return path


@pytest.fixture(autouse=True)
def _network(monkeypatch):
    """All networks turn the levels of T1 into those of MADE, with a standard deviation where samples are several."""

    def draw(facts, network, inputs, seed, progress, unused=None):
        t1 = np.asarray(inputs.prepared.arrays["t1"], np.float32)
        made = np.interp(t1, [0, *T1, 1000], [1200, *MADE, 150])
        t2 = np.where(t1 < 50, 0, made).astype(np.float32)
        sd = np.full_like(t2, SD / 700) if facts.synth.samples > 1 else None
        return [Prediction(t2 / 700 - 1, sd)], 1.0  # the window is 0 to 1400

    monkeypatch.setattr(synthesis, "sample_planes", draw)


def levels_of(image):
    """The levels of fluid, grey and white matter."""
    return astuple(find_levels(image, tissues() > 0, (4.0, 4.0, 4.0)))[:3]


def made_by(run, scan, *sites, **options):
    """The image of a model that was given the scans of the site."""
    model = package.load(run).with_contrast_of(sites) if sites else package.load(run)
    return model.synthesise({"t1": scan}, warn=no_report, **options)


def levels_in(entry):
    """The levels that an entry of a provenance states."""
    return [entry[name] for name in ("fluid", "middle", "far")]


def test_the_levels_of_an_image_become_those_of_the_scan_of_the_site(run, scan, site):
    plain, moved = made_by(run, scan), made_by(run, scan, site)
    before, after, inside = plain.volume.data[0], moved.volume.data[0], tissues() > 0
    assert levels_of(before) == pytest.approx(MADE, abs=10)
    assert levels_of(after) == pytest.approx(OF_SITE, rel=0.01)
    assert (after[~inside] == 0).all()
    order = np.argsort(before[inside], kind="stable")
    assert (np.diff(after[inside][order]) >= 0).all()
    assert plain.provenance["network_units"]["t2"]["high"] == 1400
    scale, stated = (moved.provenance[key]["t2"] for key in ("network_units", "contrast"))
    assert scale["low"] == 0
    top = 1400 * stated["to"]["top"] / stated["from"]["top"]
    assert scale["high"] == pytest.approx(top, rel=1e-4)


def test_provenance_and_a_message_state_what_was_moved(synth, run, scan, site, out):
    synth(run, f"t1={scan}", "--contrast-of", site).done()
    made = read_json(out / "patient/provenance.json")
    stated = made["contrast"]["t2"]
    assert levels_in(stated["from"]) == pytest.approx(MADE, abs=10)
    assert stated["to"] == made["synth"]["contrast"]["t2"]
    assert levels_in(stated["to"]) == pytest.approx(OF_SITE, rel=0.01)
    assert "contrast" not in read_json(out / "provenance.json")
    image = read_volume(out / "patient/t2.nii.gz").data
    assert_array_equal(image, made_by(run, scan, site).volume.data)


@slow
def test_python_takes_the_scans_as_the_command_does_and_another_scan_is_synthesised_anew(
    run, tmp_path, scan, site, out
):
    for name in ("a", "b"):
        (tmp_path / "patients" / name).mkdir(parents=True)
        shutil.copy(scan, tmp_path / "patients" / name)

    def contents(of):
        package.synthesise(run, tmp_path / "patients", out, contrast_of=of, progress=False)
        return [content_hash(out / name / "t2.nii.gz") for name in ("a", "b")]

    first = contents([site])
    assert first[0] == first[1]
    written = (out / "a/t2.nii.gz").stat().st_mtime_ns
    assert contents([f"t2={site}"]) == first
    assert (out / "a/t2.nii.gz").stat().st_mtime_ns == written
    other = write(tmp_path / "other/t2.nii.gz", (2000, 1200, 700))
    assert contents([other])[0] != first[0]


def test_several_scans_of_the_site_give_their_mean_whatever_their_gain(run, scan, site, tmp_path):
    loud = write(tmp_path / "loud/t2.nii.gz", [10 * level for level in OF_SITE], noise=100)
    one, both = (made_by(run, scan, *sites).volume.data for sites in ([site], [site, loud]))
    assert_allclose(both, 5.5 * one, rtol=1e-3)


def test_the_spread_of_samples_grows_with_the_contrast(diffusion, scan, site):
    plain, moved = (made_by(diffusion, scan, *sites, samples=2) for sites in ([], [site]))
    grey = tissues() == 2
    values, before, after = (
        volume.data[0][grey] for volume in (plain.volume, plain.std["t2"], moved.std["t2"])
    )
    assert_allclose(before, SD, rtol=1e-4)
    stated = moved.provenance["contrast"]["t2"]
    for below, above in (("far", "middle"), ("middle", "fluid")):
        start, end = (stated["from"][name] for name in (below, above))
        slope = (stated["to"][above] - stated["to"][below]) / (end - start)
        between = (values > start + 1) & (values < end - 1)
        assert between.sum() > 100
        assert_allclose(after[between], slope * SD, rtol=1e-3)


@slow
def test_each_member_of_an_ensemble_gets_the_contrast(run, scan, site):
    both = Ensemble((package.load(run),) * 2).with_contrast_of([site])
    made = both.synthesise({"t1": scan}, warn=no_report)
    assert_allclose(made.volume.data, made_by(run, scan, site).volume.data, rtol=1e-5, atol=1e-3)
    assert made.provenance["contrast"]["t2"]["to"]["fluid"] == pytest.approx(3000, rel=0.01)


@slow
def test_an_image_between_mean_and_sample_gets_the_contrast(residual, scan, site):
    Run(residual).anatomy.unlink()
    for sharpness in (0, 0.5):
        made = made_by(residual, scan, site, sharpness=sharpness).volume.data[0]
        assert levels_of(made) == pytest.approx(OF_SITE, rel=0.01)


def test_peaks_are_left_to_the_contrast(run, scan, site):
    plain, stretched = (made_by(run, scan, site, peaks=peaks) for peaks in (False, True))
    assert_array_equal(plain.volume.data, stretched.volume.data)
    assert "peaks" not in stretched.provenance


def test_a_scan_of_another_contrast_is_refused(run, scan, tmp_path):
    t1 = write(tmp_path / "site/other.nii.gz", T1)
    with refuses(r"they are of another contrast. Give scans of t2"):
        made_by(run, scan, t1)
    for name in ("t1.nii.gz", "sub-02_ses-1_T1w.nii.gz", "scanA_t1.nii.gz"):
        with refuses(r"expected a scan of t2, found .*, whose name says t1"):
            made_by(run, scan, write(tmp_path / "site" / name, T1))
    t2 = write(tmp_path / "site/t2.nii.gz", OF_SITE)
    with refuses("expected scans of one contrast for t2"):
        made_by(run, scan, t1, t2)


def z_scored(values):
    inside = values != 0
    return np.where(inside, (values - values[inside].mean()) / values[inside].std(), 0)


@slow
@every_row(
    "change, why",
    [
        (lambda values: np.where(values > 0, 5, 0), "an MR of a brain"),
        (lambda values: np.where(values > 0, values, -3), "an MR of a brain"),
        (z_scored, "a brain without skull"),
        (lambda values: values + 500, "an MR of a brain"),
        (
            lambda values: values + np.random.default_rng(0).normal(50, 10, values.shape),
            "a brain without skull",
        ),
    ],
)
def test_a_scan_without_levels_in_air_of_0_is_refused(change, why, run, site):
    changed = change_scan(site, change, site.with_name("changed.nii.gz"))
    with refuses(f"expected {why}"):
        package.load(run).with_contrast_of([changed])


def test_a_whole_head_is_refused_as_the_scan_and_as_the_input(run, scan, site, tmp_path):
    head = brain(*T1)
    wide = np.pad(head.data, ((0, 0), (4, 0), (8, 8), (8, 8)), mode="edge")
    wide[:, :4] = 600  # a neck that ends at the lower border
    noisy = wide + np.random.default_rng(0).normal(20, 5, wide.shape)
    path = tmp_path / "head/scan.nii.gz"
    write_volume(path, replace(head, data=noisy.astype(np.float32)))
    with refuses("expected a brain without skull"):
        package.load(run).with_contrast_of([path])
    with refuses("case: expected a brain without skull"):
        made_by(run, path, site)


@every_row("unit", ["HU", "ml/100g/min", "s", "grey"])
def test_targets_whose_values_mean_the_same_everywhere_are_refused(unit, run, site):
    model = package.load(run)
    quantitative = replace(model, facts=replace(model.facts, units={"t1": "a.u.", "t2": unit}))
    with refuses(f"expected a target in arbitrary units.*found t2 in {unit}"):
        quantitative.with_contrast_of([site])


def test_the_target_must_be_named_where_there_are_several(completing, site):
    model = package.load(completing)
    unnamed = write(site.with_name("scan.nii.gz"), OF_SITE)
    with refuses(r"expected the name of its contrast \(t1, t2\)"):
        model.with_contrast_of([unnamed])
    with refuses("found 't3'"):
        model.with_contrast_of([f"t3={site}"])
    named = model.with_contrast_of([f"T2={unnamed}"]).facts.synth.contrast
    assert named.keys() == {"t2"}
    assert model.with_contrast_of([site]).facts.synth.contrast == named  # t2.nii.gz
    assert model.with_only(["t2"]).with_contrast_of([unnamed]).facts.synth.contrast == named


@slow
def test_a_calibration_for_other_images_is_refused_and_no_intervals_helps(
    voxlate, run, scan, site, small_head, quick_widths, tmp_path, out
):
    for number in range(3):
        small_head(tmp_path / f"heads/new{number}", 100 + number)
    package.calibrate(run, tmp_path / "heads", any_truth=True, progress=False)
    command = ("synth", run, f"t1={scan}", "--out", out, "--contrast-of", site)
    assert "go without intervals (--no-intervals)" in voxlate(*command).refusal
    voxlate(*command, "--no-intervals").done()
    assert not list(out.rglob("*_low*"))
    moved = package.load(run).with_contrast_of([site])
    with refuses(r"found synth\.contrast"):
        calibrate(moved, [])


@slow
def test_an_exported_model_keeps_the_contrast_of_a_site(run, scan, site, tmp_path):
    pytest.importorskip("onnx")
    from voxlate.exchange.export import export_model
    from voxlate.synthesis.exported import load_exported as load

    model = package.load(run, "cpu").with_options(precision="float32").with_contrast_of([site])
    export_model(model, tmp_path / "MODEL")
    expected, found = (
        one.synthesise({"t1": scan}, warn=no_report) for one in (model, load(tmp_path / "MODEL"))
    )
    assert_array_equal(found.volume.data, expected.volume.data)
    assert found.provenance["contrast"] == expected.provenance["contrast"]
