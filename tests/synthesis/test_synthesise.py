"""Synthesis lands on the input's own grid, in its units, and does not depend on how it was cut up."""

import json
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import torch
from numpy.testing import assert_allclose, assert_array_equal

import voxlate as package
from refusals import refuses
from rows import every_row, slow
from scans import change_scan, t1_of
from stand_ins import Answering
from voxlate.base.files import read_json
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import canonical, orient
from voxlate.training import torch_network as network
from voxlate.training.load import load
from voxlate.training.run import Run
from voxlate.training.weights import load_method, save_weights


def made_of(model, cohort, **options):
    return model.synthesise(t1_of(cohort), **options)


def test_the_output_has_the_inputs_own_grid_and_the_targets_unit_also_by_weights_alone(run, cohort):
    made = made_of(load(run), cohort).volume
    assert made.grid == read_volume(cohort / "case0/t1.nii.gz").grid
    assert (made.modality, made.unit) == ("t2", "a.u.")
    assert 0 <= made.data.min() <= made.data.max() <= 1400  # the recipe's window in physical units
    assert_array_equal(made_of(load(Run(run).weights()), cohort).volume.data, made.data)


@every_row("axes", ["LPS", "SRA"])
def test_any_orientation_of_the_same_scan_gives_the_same_image(run, cohort, axes):
    scan = read_volume(cohort / "case0/t1.nii.gz")
    turned = replace(orient(scan, axes), modality="t1")
    one, other = (
        load(run).synthesise({"t1": given}, case="a").volume
        for given in (replace(scan, modality="t1"), turned)
    )
    assert other.grid == turned.grid
    assert_allclose(canonical(other).data, canonical(one).data, atol=1e-3)


def test_neither_the_batch_size_nor_the_threads_change_anything(diffusion, cohort):
    model = load(diffusion)
    one = made_of(model, cohort, samples=3, batch=2)
    for size, threads in ((1, 1), (4, 3)):
        torch.set_num_threads(threads)
        try:
            other = made_of(model, cohort, samples=3, batch=size)
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(1)
        assert one.provenance["network_calls"] == other.provenance["network_calls"]
        rounding = 0.05  # of 1400, by another batch
        assert_allclose(one.volume.data, other.volume.data, atol=rounding)
        assert_allclose(one.std["t2"].data, other.std["t2"].data, atol=rounding)


def test_the_mean_and_spread_are_those_of_the_samples(diffusion, cohort, monkeypatch):
    model, done = load(diffusion), []
    together = made_of(model, cohort, samples=4, progress=lambda *counts: done.append(counts))
    assert done[-1][0] == done[-1][1] > 0
    noise, samples = network.SynthesisNoise, []
    for number in range(4):  # which is part of the key of a sample's noise stream
        own = lambda seed, items, _, k=number, **more: noise(seed, items, k, **more)  # noqa: E731
        monkeypatch.setattr(network, "SynthesisNoise", own)
        samples.append(made_of(model, cohort, samples=1).volume.data)
    sd = together.std["t2"].data
    assert_allclose(together.volume.data, np.mean(samples, axis=0), atol=0.1)
    assert_allclose(sd, np.std(samples, axis=0, ddof=1), atol=0.1)
    assert model.network.header["target_scales"]["t2"] == [0, 1400]
    assert sd.max() > 1


def test_three_dimensional_patches_blend_to_what_the_whole_volume_gives(run, cohort):
    """With a method that works voxel by voxel, tiles of any size must give the same image."""
    model = answering(load(run), lambda source, _: -source)
    data = replace(model.facts.data, patch=(4, 9, 8))
    tiled = replace(model, facts=replace(model.facts, data=data))
    one, other = (made_of(each, cohort).volume.data for each in (model, tiled))
    assert_allclose(other, one, atol=1e-3)


def answering(model, function):
    """The model, as if its network were a function of the source."""

    return replace(model, network=replace(model.network, method=Answering(function)))


def test_mirroring_makes_the_image_symmetric(run, cohort, tmp_path):
    scans = {"t1": change_scan(*t1_of(cohort).values(), lambda data: (data + data[::-1]) / 2)}
    plain, mirrored = (
        load(run).synthesise(scans, mirror=mirror).volume.data for mirror in (False, True)
    )
    assert np.abs(plain - plain[..., ::-1]).max() > 0.1
    assert_allclose(mirrored, mirrored[..., ::-1], atol=1e-3)


def test_a_run_draws_as_another_recipe_that_trains_the_same(
    synth, diffusion, cohort, tiny, out, tmp_path
):
    other = tmp_path / "other.toml"
    how = 'title = "other"\nsynth = { sampler = "dpmpp_2m", steps = 3, samples = 2 }'
    other.write_text(f'base = "{(tmp_path / "diffusion.toml").as_posix()}"\n{how}')
    synth(diffusion, cohort / "case1", "--like", other).done()
    said = read_json(out / "case1/provenance.json")["synth"]
    assert (said["sampler"], said["steps"], said["samples"]) == ("dpmpp_2m", 3, 2)
    refusal = synth(diffusion, cohort / "case1", "--like", tiny).refusal
    assert "expected a recipe that trains the same method" in refusal


def test_the_provenance_says_how_an_image_was_made(synth, run, cohort, out):
    synth(run, cohort / "case1", "--seed", 7).done()
    said = read_json(out / "case1/provenance.json")
    assert said["seed"] == 7
    assert said["model"]["title"] == "tiny"
    assert said["voxlate"] == package.__version__
    assert "not a medical device" in said["notice"]
    assert set(said["inputs"]) == {"t1"}
    assert len(said["inputs"]["t1"]["sha256"]) == 16
    assert (said["network_calls"], said["device"]) == (1, "cpu")
    shared = read_json(out / "provenance.json")
    assert "seconds_per_slice" not in shared, "what one case took is not what the others took"


@every_row(
    "calls, options",
    [
        (3, {"sampler": "ddim", "samples": 2, "batch": 4}),
        (7, {"sampler": "predictor_corrector", "correctors": 2, "end": 0.4}),
        (6, {"sampler": "ddim", "mirror": True}),
    ],
)
def test_the_provenance_counts_what_the_network_was_asked_for_each_sample(
    diffusion, cohort, calls, options
):
    """By hand: the corrector asks 1 + correctors times at each time but the closing one."""
    said = made_of(load(diffusion), cohort, steps=3, **options).provenance
    assert said["network_calls"] == calls
    assert said["seconds_per_slice"] > 0


def test_samples_that_cannot_differ_are_refused(synth, run, cohort, out):
    refusal = synth(run, cohort / "case0", "--samples", 2).sentence
    assert "synth.samples: expected no option" in refusal
    assert not out.exists()
    model = load(run)
    for name in ("samples", "seed", "anyway"):
        with refuses(f"{name}: expected"):
            made_of(model, cohort, **{name: "x"})
    assert not made_of(model, cohort, samples=1).std


def test_names_of_scans_are_known_in_either_case_or_refused(synth, run, cohort):
    scan = cohort / "case0/t1.nii.gz"
    synth(run, f"T1={scan}").done()
    assert "found 't9'" in synth(run, f"t1={scan}", f"t9={scan}").refusal
    assert synth(run, cohort, "--missing", "t9").code == 2


@slow
def test_the_noise_goes_by_what_a_scan_shows_not_by_names_or_places(
    synth, diffusion, cohort, out, tmp_path
):
    scan, other = cohort / "case0/t1.nii.gz", tmp_path / "elsewhere/anna.nii"
    other.parent.mkdir()
    nib.save(nib.as_closest_canonical(nib.load(scan)), other)
    for path in (scan, other):
        synth(diffusion, f"t1={path}", "--exact").done()
    first, second = (read_volume(out / case / "t2.nii.gz") for case in ("case0", "anna"))
    assert_array_equal(canonical(first).data, canonical(second).data)
    memory = load(diffusion).synthesise({"t1": read_volume(scan)}, exact=True, case="x")
    assert_array_equal(memory.volume.data, first.data)


def test_exact_is_bit_identical_whatever_the_batch(diffusion, cohort):
    model = load(diffusion).with_options(exact=True, samples=2)
    one, other = (made_of(model, cohort, batch=batch) for batch in (1, 5))
    assert_array_equal(one.volume.data, other.volume.data)
    assert_array_equal(one.std["t2"].data, other.std["t2"].data)


def test_cases_that_lack_a_scan_or_cannot_be_read_are_listed_and_the_others_made(
    synth, run, cohort, out
):
    (cohort / "case1/t1.nii.gz").unlink()
    (cohort / "case4/t1.nii.gz").write_bytes(b"no image")
    answer = synth(run, cohort)
    assert answer.code == 3
    said = [line for line in answer.err.splitlines() if line.startswith("voxlate: left out")]
    assert len(said) == 2
    assert "case1" in said[0]
    assert "case4/t1.nii.gz: expected" in said[1].replace("\\", "/")
    made = sorted(path.parent.name for path in out.glob("*/t2.nii.gz"))
    assert made == ["case0", "case2", "case3", "case5"]
    assert list(read_json(out / "provenance.json")["failed"]) == ["case4"]


def test_an_image_of_another_patient_is_never_written_over(synth, run, cohort):
    one, other, again = (cohort / f"case{number}" / "t1.nii.gz" for number in range(3))
    scan = cohort / "patient/t1.nii.gz"
    scan.parent.mkdir()
    shutil.copy(one, scan)
    synth(run, f"t1={scan}").done()
    same_name = cohort / "b/patient/t1.nii.gz"
    same_name.parent.mkdir(parents=True)
    shutil.copy(other, same_name)
    assert "expected no image of another scan" in synth(run, f"t1={same_name}").refusal
    shutil.copy(again, scan)  # the same patient's scan, corrected
    synth(run, f"t1={scan}").done()


@every_row("name", ["../../evil", "/tmp/evil", ".hidden", "a" * 101])
def test_a_name_in_a_weights_header_that_would_leave_its_folder_is_refused(
    run, cohort, tmp_path, name
):
    method, _, header = load_method(run)
    text = json.dumps(header["recipe"]).replace('"t2"', json.dumps(name))
    changed = {**header, "recipe": json.loads(text), "units": {"t1": "a.u.", name: "a.u."}}
    changed |= {"target_scales": {name: [0, 1400]}, "target_widths": {name: [1400, 1400]}}
    save_weights(tmp_path / "w.safetensors", method, changed)
    with refuses("expected a name of letters"):
        load(tmp_path / "w.safetensors")


def test_an_image_that_is_not_finite_is_not_written(run, cohort):
    broken = answering(load(run), lambda source, _: source * float("nan"))
    with refuses("2880 of 2880"):
        made_of(broken, cohort)


def test_python_gives_nibabel_images_and_files_of_images_that_there_are(run, cohort, out):
    made = made_of(load(run), cohort)
    voxels = made.volume.data[0].T
    assert_array_equal(made.to_nifti().get_fdata(), voxels)
    assert_array_equal(made.to_nifti("t2").affine, nib.load(t1_of(cohort)["t1"]).affine)
    (written,) = made.save(out)
    assert_allclose(nib.load(written).get_fdata(), voxels, atol=1e-4)
    assert "load" in dir(package)


def test_a_scan_is_never_replaced_by_a_synthesis(voxlate, run, cohort, out):
    truth = cohort / "case0/t2.nii.gz"
    before = truth.read_bytes()
    sentence = "t2.nii.gz: expected no file of this name that voxlate did not write, found one: is it the scan"
    assert sentence in voxlate("synth", run, cohort, "--out", cohort).refusal
    made = made_of(load(run), cohort)
    with refuses():
        made.save(cohort / "case0")
    assert truth.read_bytes() == before
    made.save(out)
    (out / "provenance.json").unlink()  # as a run leaves it that is killed there
    made.save(out)
