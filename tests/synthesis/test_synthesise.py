"""Synthesis lands on the input's own grid, in its units, and does not depend on how it was cut up."""

import json
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import voxlate as package
from rows import every_row
from scans import change_scan, t1_of
from voxlate.base.errors import BadInput
from voxlate.base.files import read_json
from voxlate.scans.formats.io import read_volume
from voxlate.training.model import load
from voxlate.training.run import Run
from voxlate.training.weights import load_method, save_weights


def test_the_output_has_the_inputs_own_grid_and_the_targets_unit(run, cohort):
    made = load(run).synthesise(t1_of(cohort)).volume
    scan = read_volume(cohort / "case0/t1.nii.gz")
    assert made.grid == scan.grid
    assert made.modality == "t2"
    assert made.unit == "a.u."
    assert 0 <= made.data.min() <= made.data.max() <= 1400  # the recipe's window in physical units


@every_row("axes", ["LPS", "SRA"])
def test_any_orientation_of_the_same_scan_gives_the_same_image(run, cohort, tmp_path, axes):
    image = nib.load(cohort / "case0/t1.nii.gz")
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes)
    )
    nib.save(image.as_reoriented(turn), tmp_path / "t1.nii.gz")
    model = load(run)
    one = model.synthesise(t1_of(cohort), case="a").volume
    other = model.synthesise({"t1": tmp_path / "t1.nii.gz"}, case="a").volume
    assert other.grid == read_volume(tmp_path / "t1.nii.gz").grid
    first, second = (
        nib.Nifti1Image(made.data[0].transpose(2, 1, 0), made.affine) for made in (one, other)
    )
    assert_allclose(
        nib.as_closest_canonical(first).get_fdata(),
        nib.as_closest_canonical(second).get_fdata(),
        atol=1e-3,
    )


def test_neither_the_batch_size_nor_the_threads_change_anything(diffusion, cohort):
    model = load(diffusion)
    one = model.synthesise(t1_of(cohort), samples=3, batch=2)
    for size, threads in ((1, 1), (4, 3)):
        torch.set_num_threads(threads)
        try:
            other = model.synthesise(t1_of(cohort), samples=3, batch=size)
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(1)
        assert one.provenance["network_calls"] == other.provenance["network_calls"]
        rounding = 0.05  # of 1400, by another batch
        assert_allclose(one.volume.data, other.volume.data, atol=rounding)
        assert_allclose(one.std["t2"].data, other.std["t2"].data, atol=rounding)


def test_the_mean_and_spread_are_those_of_the_samples(diffusion, cohort):
    model = load(diffusion)
    done = []

    def keep(*counts):
        done.append(counts)

    together = model.synthesise(t1_of(cohort), samples=4, batch=99, progress=keep)
    slices = done[-1][1]
    assert done == [(slices * part // 4, slices) for part in (1, 2, 3, 4)], "told by each sample"
    scale = model.network.header["target_scales"]["t2"]
    samples = torch.stack([torch.from_numpy(one) for one in _samples(model, cohort, 4)])
    expected = samples.mean(0).numpy() * 1.0
    assert_allclose(together.volume.data[0], expected, atol=0.1)
    assert_allclose(together.std["t2"].data[0], samples.std(0).numpy(), atol=0.1)
    assert scale == [0, 1400]
    assert together.std["t2"].data.max() > 1


def _samples(model, cohort, count):
    """Each sample by itself: the sample's number is part of its noise stream's key."""
    from voxlate.training import network

    real = network.Noise
    for number in range(count):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                network,
                "Noise",
                lambda seed, items, _, k=number, **more: real(seed, items, k, **more),
            )
            yield model.synthesise(t1_of(cohort), samples=1).volume.data[0]


def test_a_weights_file_alone_is_a_whole_model(run, cohort):
    by_run = load(run).synthesise(t1_of(cohort)).volume.data
    by_file = load(Run(run).weights()).synthesise(t1_of(cohort)).volume.data
    assert np.array_equal(by_run, by_file)


def test_three_dimensional_patches_blend_to_what_the_whole_volume_gives(run, cohort):
    """With a method that works voxel by voxel, tiles of any size must give the same image."""

    class Negative(torch.nn.Module):
        net = torch.nn.Identity()

        def synthesise(self, batch, noise, sampling):
            return -batch.source

    model = load(run)
    model = replace(model, network=replace(model.network, method=Negative()))
    whole = model.synthesise(t1_of(cohort)).volume.data
    tiled = replace(
        model,
        facts=replace(model.facts, data=replace(model.facts.data, patch=(4, 9, 8))),
    )
    assert_allclose(tiled.synthesise(t1_of(cohort)).volume.data, whole, atol=1e-3)


def test_mirroring_makes_the_image_symmetric(run, cohort, tmp_path):
    scans = {"t1": change_scan(*t1_of(cohort).values(), lambda data: (data + data[::-1]) / 2)}
    plain, mirrored = (
        load(run).synthesise(scans, mirror=mirror).volume.data for mirror in (False, True)
    )
    assert np.abs(plain - plain[..., ::-1]).max() > 0.1
    assert_allclose(mirrored, mirrored[..., ::-1], atol=1e-3)


def test_a_cohort_is_synthesised_case_by_case_and_resumed(voxlate, run, cohort, out):
    voxlate("synth", run, cohort, "--out", out).done()
    written = {path: path.stat().st_mtime_ns for path in out.glob("*/t2.nii.gz")}
    assert len(written) == 6
    # As a run that was killed while it wrote case2 leaves it.
    (out / "case2/provenance.json").unlink()
    answer = voxlate("synth", run, cohort, "--out", out, "-v").done()
    assert "5 of 6" in answer.err
    again = {path: path.stat().st_mtime_ns for path in out.glob("*/t2.nii.gz")}
    assert [path.parent.name for path in written if written[path] != again[path]] == ["case2"]


@pytest.mark.slow
def test_scores_of_training_cases_are_said_to_be_no_held_out_scores(voxlate, run, cohort, tmp_path):
    splits = read_json(Run(run).provenance)["data"]["splits"]
    out, unseen = tmp_path / "out", tmp_path / "unseen"
    voxlate("synth", run, cohort, "--out", out).done()
    voxlate("synth", run, cohort, "--out", unseen, "--split", "val").done()
    run.rename(tmp_path / "elsewhere")  # each image's own provenance names the split
    sentence = f"{len(splits['train'])} of 6 cases were in the model's training (by name), so their scores are not held-out scores."
    assert sentence in " ".join(voxlate("evaluate", out, "--truth", cohort).out.split())
    assert read_json(out / "metrics.json")["trained_on"] == sorted(splits["train"])
    voxlate("report", out).done()
    page = (out / "report.html").read_text()
    assert page.count(sentence.replace("'", "&#39;")) == 2  # headline and caption
    answer = voxlate("evaluate", unseen, "--truth", cohort)
    assert read_json(unseen / "metrics.json")["trained_on"] == []
    assert "held-out" not in answer.out + answer.err


def test_a_run_draws_as_another_recipe_that_trains_the_same(
    voxlate, diffusion, cohort, tiny, out, tmp_path
):
    other = tmp_path / "other.toml"
    how = 'title = "other"\nsynth = { sampler = "heun", steps = 3, samples = 2 }'
    other.write_text(f'base = "{(tmp_path / "diffusion.toml").as_posix()}"\n{how}')
    voxlate("synth", diffusion, cohort / "case1", "--out", out, "--like", other).done()
    said = read_json(out / "case1/provenance.json")["synth"]
    assert (said["sampler"], said["steps"], said["samples"]) == ("heun", 3, 2)
    answer = voxlate(
        "synth", diffusion, cohort / "case1", "--out", tmp_path / "no", "--like", tiny
    ).refusal
    assert "expected a recipe that trains the same method" in answer


def test_the_provenance_says_how_an_image_was_made(voxlate, run, cohort, out):
    voxlate("synth", run, cohort / "case1", "--out", out, "--seed", 7).done()
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


def test_the_provenance_counts_what_the_network_was_asked_for_each_sample(diffusion, cohort):
    """By hand: heun asks twice at each time but the closing one, the corrector 1 + correctors times."""
    model = load(diffusion)
    for calls, options in [
        (3, {"sampler": "ddim", "samples": 2, "batch": 4}),
        (5, {"sampler": "heun"}),
        (7, {"sampler": "predictor_corrector", "correctors": 2, "end": 0.4}),
        (6, {"sampler": "ddim", "mirror": True}),
    ]:
        said = model.synthesise(t1_of(cohort), steps=3, **options).provenance
        assert said["network_calls"] == calls
        assert said["seconds_per_slice"] > 0


@pytest.mark.slow
def test_pictures_come_back_as_pictures_too(voxlate, out, tmp_path, tiny):
    draw = np.random.default_rng(0)
    for number in range(4):
        folder = tmp_path / "cohort" / f"c{number}"
        folder.mkdir(parents=True)
        for name in ("t1", "t2"):
            Image.fromarray(draw.integers(0, 256, (24, 20), np.uint8)).save(folder / f"{name}.png")
    voxlate("prepare", tmp_path / "cohort", "--out", tmp_path / "prepared", "--no-audit").done()
    voxlate("train", tiny, "--data", tmp_path / "prepared", "--out", tmp_path / "run").done()
    voxlate("synth", tmp_path / "run", tmp_path / "cohort", "--anyway", "--out", out).done()
    picture = np.asarray(Image.open(out / "c0/t2.png"))
    volume = nib.load(out / "c0/t2.nii.gz")
    assert picture.shape == (24, 20)
    assert_allclose(picture.T, np.clip(np.rint(volume.get_fdata()[..., 0]), 0, 255), atol=1)


def test_samples_that_cannot_differ_are_refused(voxlate, run, cohort, out):
    refusal = voxlate("synth", run, cohort / "case0", "--out", out, "--samples", 2).sentence
    assert "synth.samples: expected 1 for 'tiny', which draws no noise" in refusal
    assert not out.exists()
    with pytest.raises(BadInput, match="found 3"):
        load(run).synthesise(t1_of(cohort), samples=3)
    for name in ("samples", "seed", "anyway"):
        with pytest.raises(BadInput, match=f"{name}: expected"):
            load(run).synthesise(t1_of(cohort), **{name: "1"})
    assert not load(run).synthesise(t1_of(cohort), samples=1).std


def test_names_of_scans_are_known_in_either_case_or_refused(voxlate, run, cohort, tmp_path):
    scan = cohort / "case0/t1.nii.gz"
    voxlate("synth", run, f"T1={scan}", "--out", tmp_path / "a").done()
    unknown = voxlate("synth", run, f"t1={scan}", f"t9={scan}", "--out", tmp_path / "b").refusal
    assert "found 't9'" in unknown
    assert voxlate("synth", run, cohort, "--missing", "t9", "--out", tmp_path / "c").code == 2


@pytest.mark.slow
def test_without_the_scan_whose_grid_training_took_its_spacing_is_kept(
    out, tmp_path, tiny, small_head, voxlate
):
    """t1 has the grid of training, 3 mm thick; t2 alone, 6 mm thick, is what the model is given."""
    for number in range(4):
        folder = tmp_path / "cohort" / f"case{number}"
        small_head(folder, number)
        thick = nib.load(folder / "t2.nii.gz")
        halved = nib.Nifti1Image(
            np.asarray(thick.dataobj)[..., ::2], np.diag([-2.0, -2.0, 6.0, 1.0])
        )
        nib.save(halved, folder / "t2.nii.gz")
    prepared, made = tmp_path / "prepared", tmp_path / "run"
    voxlate("prepare", tmp_path / "cohort", "--resample", "--out", prepared, "--no-audit").done()
    turned = ["--set", 'data.source=["t2"]', "--set", 'data.target=["t1"]']
    voxlate("train", tiny, "--data", prepared, "--out", made, *turned).done()
    voxlate("synth", made, f"t2={tmp_path}/cohort/case0/t2.nii.gz", "--out", out).done()
    provenance = read_json(out / "case0/provenance.json")
    assert provenance["prepared"]["spacing_mm"] == [3.0, 2.0, 2.0]
    assert "in place of the training's t1" in provenance["prepared"]["grid_of"]
    own_grid = nib.load(out / "case0/t1.nii.gz").shape
    assert own_grid == (20, 24, 3)


@pytest.mark.slow
def test_the_noise_goes_by_what_a_scan_shows_not_by_names_or_places(
    voxlate, diffusion, cohort, out, tmp_path
):
    scan, other = cohort / "case0/t1.nii.gz", tmp_path / "elsewhere/anna.nii"
    other.parent.mkdir()
    nib.save(nib.as_closest_canonical(nib.load(scan)), other)
    for path in (scan, other):
        voxlate("synth", diffusion, f"t1={path}", "--out", out, "--exact").done()
    first, second = (nib.load(out / case / "t2.nii.gz") for case in ("case0", "anna"))
    assert_array_equal(nib.as_closest_canonical(first).get_fdata(), second.get_fdata())
    memory = load(diffusion).synthesise({"t1": read_volume(scan)}, exact=True, case="x")
    assert_array_equal(memory.volume.data[0].T, np.asarray(first.dataobj, np.float32))


def test_exact_is_bit_identical_whatever_the_batch(diffusion, cohort):
    model = load(diffusion).with_options(exact=True, samples=2)
    one, other = (model.synthesise(t1_of(cohort), batch=batch) for batch in (1, 5))
    assert_array_equal(one.volume.data, other.volume.data)
    assert_array_equal(one.std["t2"].data, other.std["t2"].data)


def test_cases_that_lack_a_scan_or_cannot_be_read_are_listed_and_the_others_made(
    voxlate, run, cohort, out
):
    (cohort / "case1/t1.nii.gz").unlink()
    (cohort / "case4/t1.nii.gz").write_bytes(b"no image")
    answer = voxlate("synth", run, cohort, "--out", out)
    assert answer.code == 3
    said = [line for line in answer.err.splitlines() if line.startswith("voxlate: left out")]
    assert len(said) == 2
    assert "case1" in said[0]
    assert "case4/t1.nii.gz: expected" in said[1].replace("\\", "/")
    made = sorted(path.parent.name for path in out.glob("*/t2.nii.gz"))
    assert made == ["case0", "case2", "case3", "case5"]
    assert list(read_json(out / "provenance.json")["failed"]) == ["case4"]


@pytest.mark.slow
def test_images_made_in_another_way_do_not_stay_next_to_new_ones(
    voxlate, run, cohort, out, tmp_path
):
    voxlate("synth", run, cohort, "--split", "val", "--out", out).done()
    voxlate("synth", run, cohort, "--split", "test", "--out", out).done()  # the same way
    kept = sorted(path.name for path in out.iterdir() if path.is_dir())
    answer = voxlate("synth", run, cohort, "--split", "test", "--seed", "1", "--out", out).refusal
    assert "seed: 0 and 1" in answer
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == kept
    answer = voxlate("synth", run, cohort, "--split", "val", "--seed", "1", "--out", tmp_path / "b")
    assert "made" not in answer.err
    answer = voxlate("synth", run, cohort, "--split", "val", "--out", tmp_path / "b").done()
    assert "seed: 1 and 0" in answer.err
    assert "kept" not in answer.err


@pytest.mark.slow
def test_an_old_image_of_a_case_that_now_lacks_its_scan_is_not_scored(voxlate, run, cohort, out):
    voxlate("synth", run, cohort, "--out", out).done()
    (cohort / "case1/t1.nii.gz").unlink()
    assert voxlate("synth", run, cohort, "--out", out).code == 3
    answer = voxlate("evaluate", out, "--truth", cohort).refusal
    assert "voxlate: not scored: case1 (its image is of an earlier run" in answer
    (cohort / "case1/t1.nii.gz").write_bytes((cohort / "case2/t1.nii.gz").read_bytes())
    voxlate("synth", run, cohort, "--out", out).done()
    # made again, of a scan that is not of the truth's patient
    voxlate("evaluate", out, "--truth", cohort, "--any-truth").done()


def test_an_image_of_another_patient_is_never_written_over(voxlate, run, cohort, out, tmp_path):
    first, other = (tmp_path / place / "patient/t1.nii.gz" for place in ("a", "b"))
    for path, case in ((first, "case0"), (other, "case1")):
        path.parent.mkdir(parents=True)
        shutil.copy(cohort / case / "t1.nii.gz", path)
    voxlate("synth", run, f"t1={first}", "--out", out).done()
    answer = voxlate("synth", run, f"t1={other}", "--out", out).refusal
    assert "expected no image of another scan" in answer
    shutil.copy(cohort / "case2/t1.nii.gz", first)  # the same patient's scan, corrected
    voxlate("synth", run, f"t1={first}", "--out", out).done()


@every_row("name", ["../../evil", "/tmp/evil", ".hidden", "a" * 101])
def test_a_name_in_a_weights_header_that_would_leave_its_folder_is_refused(
    run, cohort, tmp_path, name
):
    method, _, header = load_method(run)
    text = json.dumps(header["recipe"]).replace('"t2"', json.dumps(name))
    changed = {**header, "recipe": json.loads(text), "units": {"t1": "a.u.", name: "a.u."}}
    changed |= {"target_scales": {name: [0, 1400]}, "target_widths": {name: [1400, 1400]}}
    save_weights(tmp_path / "w.safetensors", method, changed)
    with pytest.raises(BadInput, match="expected a name of letters"):
        load(tmp_path / "w.safetensors")


def test_an_image_that_is_not_finite_is_not_written(run, cohort):
    class Broken(torch.nn.Module):
        net = torch.nn.Identity()

        def synthesise(self, batch, noise, sampling):
            return batch.source * float("nan")

    model = load(run)
    broken = replace(model, network=replace(model.network, method=Broken()))
    with pytest.raises(BadInput, match="2880 of 2880"):
        broken.synthesise(t1_of(cohort))


def test_scans_on_another_scale_than_the_training_are_said_to_be(run, cohort, tmp_path):
    (scan,) = t1_of(cohort).values()
    same = change_scan(scan, lambda data: data * 1.05, tmp_path / "same/t1.nii.gz")
    other = change_scan(scan, lambda data: data * 1.9, tmp_path / "other/t1.nii.gz")
    model = load(run)
    assert model.check(same).messages == ()
    assert [said.code for said in model.check(other).messages] == ["brightness"]
    assert model.check(other).grade == "do not trust"


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "words"), [(3.0, "of at most 20%"), (0.001, "filled")])
def test_a_cohort_on_another_scale_than_the_recipes_window_does_not_train(
    voxlate, cohort, tiny, tmp_path, factor, words
):
    for path in cohort.glob("*/t1.nii.gz"):
        change_scan(path, lambda data: data * factor)
    voxlate("prepare", cohort, "--out", tmp_path / "p", "--no-audit").done()
    answer = voxlate("train", tiny, "--data", tmp_path / "p", "--out", tmp_path / "r").refusal
    assert words in answer
    assert not (tmp_path / "r").exists()
    if factor > 1:
        change = ["--set", "intensity.t1.clips=1", "--set", "train.steps=1"]
        voxlate("train", tiny, "--data", tmp_path / "p", "--out", tmp_path / "r", *change).done()


@pytest.mark.slow
def test_z_scored_scans_are_refused_by_a_map_that_ends_at_zero_in_training_and_at_synthesis(
    voxlate, trained, tiny, cohort, out, tmp_path
):
    window = 't1 = { kind = "window", low = 0, high = 1200 }'
    text = tiny.read_text().replace(window, 't1 = { kind = "percentile", floor = 0 }')
    run = trained("floor", text)

    def score(data):
        return (data - data[data > 0].mean()) / data[data > 0].std()

    path = change_scan(*t1_of(cohort).values(), score)
    answer = voxlate("synth", run, f"t1={path}", "--out", out).refusal
    assert "above 0 (intensity.t1.floor)" in answer
    assert not (out / "case0").exists()
    voxlate(
        "prepare", cohort, "--out", tmp_path / "q", "--shares", "1", "0", "0", "--no-audit"
    ).done()
    command = ("train", tmp_path / "floor.toml", "--data", tmp_path / "q")
    answer = voxlate(*command, "--out", tmp_path / "s").refusal
    assert "above 0 (intensity.t1.floor)" in answer


def test_python_gives_nibabel_images_and_files_of_images_that_there_are(run, cohort, tmp_path):
    (path,) = t1_of(cohort).values()
    image, model = nib.load(path), load(run)
    made = model.synthesise({"t1": path})
    assert_array_equal(made.to_nifti().get_fdata(), made.volume.data[0].T)
    assert_array_equal(made.to_nifti("t2").affine, image.affine)
    (written,) = made.save(tmp_path / "here")
    assert_allclose(nib.load(written).get_fdata(), made.volume.data[0].T, atol=1e-4)
    assert made.show().size[0] > 60
    assert "load" in dir(package)
    for ask in (made.to_nifti, made.volumes.__getitem__):
        with pytest.raises(BadInput, match="x: expected t2"):
            ask("x")
    with pytest.raises(BadInput, match="folder: expected a path"):
        made.save(3)


def test_a_scan_is_never_replaced_by_a_synthesis(voxlate, run, cohort, out):
    truth = cohort / "case0/t2.nii.gz"
    before = truth.read_bytes()
    answer = voxlate("synth", run, cohort, "--out", cohort).refusal
    sentence = "t2.nii.gz: expected no file of this name that voxlate did not write, found one: is it the scan"
    assert sentence in answer
    made = load(run).synthesise(t1_of(cohort))
    with pytest.raises(BadInput):
        made.save(cohort / "case0")
    assert truth.read_bytes() == before
    made.save(out)
    (out / "provenance.json").unlink()  # as a run leaves it that is killed there
    made.save(out)
