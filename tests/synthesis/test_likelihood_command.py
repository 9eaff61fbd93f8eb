"""voxlate likelihood: known answers of a network that says nothing, whatever the batch; what it refuses."""

import json
import math

import nibabel as nib
import numpy as np
import pytest
import torch

from voxlate import recipe
from voxlate.batches.batches import validation_batches
from voxlate.cases.prepare import prepare
from voxlate.cases.prepared import open_cohort
from voxlate.synthesis.likelihood import _mean_and_sd, likelihood
from voxlate.system.files import read_json
from voxlate.training.run import Run
from voxlate.training.train import train
from voxlate.training.weights import load_method, save_weights

TINY = """
title = "tiny"
data = { source = ["t1"], target = ["t2"], patch = [1, 8, 8] }
intensity = { t1 = { kind = "window", low = 0, high = 1200 }, t2 = { kind = "window", low = 0, high = 1400 } }
method = { kind = "diffusion" }
net = { kind = "unet", width = 8, multipliers = [1], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 1, batch = 2, precision = "float32", validate_every = 0, validation_items = 1 }
synth = { steps = 1, batch = 4 }
"""
PREDICTOR = """
[[stages]]
name = "predictor"
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 1, batch = 2, precision = "float32", validate_every = 0, validation_items = 1 }
"""


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """Three prepared cases of noise, one of them for validation."""
    draw, folder = np.random.default_rng(0), tmp_path_factory.mktemp("likelihood")
    for case in range(3):
        (folder / "cohort" / f"case{case}").mkdir(parents=True)
        for name in ("t1", "t2"):
            image = nib.Nifti1Image(
                draw.uniform(100, 1200, (8, 8, 6)).astype(np.float32), np.diag([2.0, 2, 3, 1])
            )
            nib.save(image, folder / "cohort" / f"case{case}" / f"{name}.nii.gz")
    prepare(folder / "cohort", folder / "prepared", workers=0)
    return folder


def trained(ready, text, name, change=lambda parameter: parameter.zero_()):
    """A run whose network's weights are changed: to 0, so that it always gives 0."""
    (ready / f"{name}.toml").write_text(text)
    train(recipe.read(str(ready / f"{name}.toml")), ready / "prepared", ready / name, device="cpu")
    method, _, header = load_method(ready / name)
    for parameter in method.net.parameters():
        change(parameter)
    save_weights(Run(ready / name).weights(), method, header)
    return ready / name


@pytest.fixture(scope="module")
def prepared(ready):
    return ready / "prepared"


@pytest.fixture(scope="module")
def silent(ready):
    """With v always 0 nothing ever moves: x0 has the density of the noise, N(0, 1)."""
    return trained(ready, TINY, "silent")


def bits_under_noise(prepared, run):
    """−log2 N(x; 0, 1) of each slice of the validation case, by hand."""
    _, made, _ = load_method(run)
    targets = torch.cat(
        [
            batch.target
            for batch in validation_batches(open_cohort(prepared), made.data, made.intensity)
        ]
    )
    return (targets.square().flatten(1).mean(1) / math.log(4) + math.log2(2 * math.pi) / 2).numpy()


def test_a_network_that_says_nothing_leaves_the_density_of_the_noise(
    voxlate, prepared, silent, tmp_path
):
    answer = voxlate(
        "likelihood", silent, prepared, "--json", "--out", tmp_path / "bits.json"
    ).done()
    said = json.loads(answer.out)
    expected = bits_under_noise(prepared, silent)
    (row,) = said["cases"]
    assert row["pieces"] == len(expected) == 6
    assert row["bits_per_dim"] == pytest.approx(expected.mean(), abs=1e-4)
    assert row["sd"] == pytest.approx(expected.std(ddof=1), abs=1e-4)
    part = said["targets"]["t2"]
    assert (part["mean"], part["cases"], part["sd"]) == (row["bits_per_dim"], 1, None)
    assert part["in_unit"] == {"unit": "a.u.", "adds": pytest.approx(math.log2(700))}, (
        "1400 units fill [-1, 1]"
    )
    assert part["network_calls"] >= 7
    assert read_json(tmp_path / "bits.json") == said
    fewer = likelihood(silent, prepared, slices=3, tolerance=1e-3).document["cases"][0]
    assert fewer["pieces"] == 3  # spread over the case
    assert fewer["bits_per_dim"] == pytest.approx(expected[[1, 3, 5]].mean(), abs=1e-3)


def test_neither_the_batch_nor_the_other_slices_change_a_slices_bits(ready, prepared):
    """The network speaks here, so that the probes matter: each slice has its own."""
    torch.manual_seed(0)
    run = trained(
        ready,
        TINY,
        "speaking",
        lambda parameter: parameter.add_(0.05 * torch.randn(parameter.shape)),
    )

    def bits(batch, seed=0):
        found = likelihood(run, prepared, tolerance=1e-2, slices=2, batch=batch, seed=seed)
        return found.document["cases"][0]["bits_per_dim"]

    alone = bits(batch=1)
    assert bits(batch=2) == pytest.approx(alone, abs=5e-3), (
        "rounding moves where steps end, within the tolerance"
    )
    assert abs(bits(batch=2, seed=1) - alone) > 0.02, "other probes"


def test_a_residuals_density_is_said_to_be_one_and_counts_its_scale(voxlate, ready, prepared):
    task = 'task = { kind = "residual", scale = 4 }\n'
    run = trained(ready, TINY.replace("intensity", f"{task}intensity") + PREDICTOR, "residual")
    answer = voxlate("likelihood", run, prepared, "--tolerance", "1e-2", "--slices", 2).done()
    text = " ".join(answer.out.split())
    assert "density of the residual: truth minus the predictor's image, times 4" in text
    assert f"{math.log2(700 / 4):+.3f} bits" in text


def test_a_completing_model_is_asked_for_each_modality_in_turn(ready, prepared):
    both = TINY.replace(
        'source = ["t1"], target = ["t2"]', 'source = ["t1", "t2"], target = ["t1", "t2"]'
    )
    run = trained(
        ready, both.replace("intensity", 'task = { kind = "complete" }\nintensity'), "completing"
    )
    parts = likelihood(run, prepared, tolerance=1e-3, slices=2).document["targets"]
    assert list(parts) == ["t1", "t2"]
    _, made, _ = load_method(run)
    batch = next(validation_batches(open_cohort(prepared), made.data, made.intensity))
    for channel, name in enumerate(parts):
        x = batch.target[[1, 4], channel]
        expected = float(x.square().mean()) / math.log(4) + math.log2(2 * math.pi) / 2
        assert parts[name]["mean"] == pytest.approx(expected, abs=1e-3)


def test_a_run_that_has_no_density_is_refused(voxlate, ready, prepared):
    run = trained(ready, TINY.replace('"diffusion"', '"regression"'), "regression")
    answer = voxlate("likelihood", run, prepared).refusal
    assert "expected a diffusion model" in answer
    assert "found method.kind 'regression'" in answer


@pytest.mark.parametrize(
    ("tolerance", "expected"),
    [
        ("0", "expected a number above 0, found"),
        ("-1e-5", "expected a number above 0, found"),
        ("nan", "expected a number, found 'nan'"),
    ],
)
def test_a_tolerance_that_no_step_can_keep_is_refused(
    voxlate, silent, prepared, tolerance, expected, tmp_path
):
    answer = voxlate(
        "likelihood", silent, prepared, "--tolerance", tolerance, "--out", tmp_path / "bits.json"
    ).refusal
    assert f"voxlate: --tolerance: {expected}" in answer
    assert not (tmp_path / "bits.json").exists()


def test_a_cohort_that_is_not_prepared_is_refused(voxlate, silent, ready):
    assert "Run voxlate prepare first" in voxlate("likelihood", silent, ready / "cohort").refusal


def test_infinite_bits_are_no_number_in_the_file():
    assert _mean_and_sd([1.0, np.inf]) == {"mean": None, "sd": None}
