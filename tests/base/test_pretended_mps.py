"""Training and synthesis on a device without float64, whose copies must wait: pretended, since MPS is only on Macs."""

import pytest
import torch
from pretended import OnMps, pretended_mps

from voxlate.base.errors import Stopped
from voxlate.scans.cases.prepared import open_cohort
from voxlate.synthesis.cohort import synthesise_cases
from voxlate.synthesis.scans import find_scans
from voxlate.synthesis.selection import Selection
from voxlate.training import recipe
from voxlate.training.load import load
from voxlate.training.planning.probe import Limits, Probe
from voxlate.training.recipe import to_dict
from voxlate.training.run import Run
from voxlate.training.train import train
from voxlate.training.weights import read_header

pytestmark = pytest.mark.slow

UNET = 'net = { kind = "unet", width = 4, multipliers = [1], blocks = 1, groups = 2, middle_attention = false }'
RESNET = 'net = { kind = "resnet", width = 4, blocks = 1 }'
ONE = 'data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20] }'
STOP = "stop = { after_epochs = 100 }"  # so that the state has the losses of an epoch
LATENTS = """
[[stages]]
name = "autoencoder"
method = { kind = "autoencoding" }
net = { kind = "kl_autoencoder", width = 8, multipliers = [1, 2], blocks = 1, groups = 4 }
train = { steps = 2, batch = 2, precision = "float32" }
"""
EXPLODING = (
    'schedule = { kind = "exponential_ve" }, prediction = "x_plus_score", scaled_input = true'
)
WAYS = {
    "a state that the network sees scaled": [
        ONE,
        f'method = {{ kind = "diffusion", {EXPLODING} }}',
        UNET,
    ],
    "cycle": [
        ONE,
        'method = { kind = "cycle", critic = { widths = [4, 4], output = "patches" } }',
        RESNET,
    ],
    "latents": [
        ONE,
        'task = { kind = "latent" }',
        'method = { kind = "diffusion" }',
        UNET,
        LATENTS,
    ],
}
TOP = """title = "tiny"
train = { steps = 2, batch = 2, precision = "float32", validate_every = 2, validation_items = 1 }
synth = { sampler = "ddim", steps = 2, samples = SAMPLES }
"""
BELOW = """
[intensity]
t1 = { kind = "percentile", low = 0, high = 99.5 }
t2 = { kind = "percentile", low = 0, high = 99.5 }
"""


def text_of(way):
    lines = sorted(WAYS[way], key=lambda line: line.startswith("\n[["))
    draws = "2" if "diffusion" in "".join(lines) else "1"
    return "\n".join([TOP.replace("SAMPLES", draws), *lines, BELOW])


@pytest.mark.parametrize("way", WAYS)
def test_a_model_is_trained_and_used_on_mps_as_on_a_cpu(
    way, cohort, prepared, tmp_path, monkeypatch
):
    (tmp_path / "own.toml").write_text(text_of(way))
    made = recipe.read(str(tmp_path / "own.toml"))
    with pretended_mps(monkeypatch):
        run = train(made, prepared, tmp_path / "mps", device="auto")
        model = load(run.folder, device="mps")
        assert all(isinstance(one, OnMps) for one in model.network.method.state_dict().values())
        scans = find_scans([str(cohort)], model)
        folders, failed, _ = synthesise_cases(Selection(model, scans[:1]), tmp_path / "out")
        assert len(folders) == 1
        assert not failed
    here = train(made, prepared, tmp_path / "cpu", device="cpu")
    ours, theirs = (
        load(one.folder, device="cpu").network.method.state_dict() for one in (here, run)
    )
    for name, value in ours.items():
        assert torch.allclose(value, theirs[name], atol=1e-3), name


def test_a_training_that_stopped_on_a_cpu_resumes_on_mps(prepared_once, tmp_path, monkeypatch):
    stop = TOP.replace(
        "validation_items = 1", f"validation_items = 1, save_every = 0, {STOP}"
    ).replace("SAMPLES", "1")
    (tmp_path / "own.toml").write_text("\n".join([stop, *WAYS["cycle"], BELOW]))
    made = recipe.read(str(tmp_path / "own.toml"))

    def interrupt(stage, step, *_):
        if step == 2:
            raise Stopped("here")

    with pytest.raises(Stopped):
        train(made, prepared_once, tmp_path / "run", device="cpu", progress=interrupt)
    assert not Run(tmp_path / "run").weights().exists()
    with pretended_mps(monkeypatch):
        run = train(made, prepared_once, tmp_path / "run", device="mps")
    assert read_header(run.weights())["steps"] == 2


def test_a_plan_is_probed_on_mps_without_readers(prepared_once, tmp_path, monkeypatch):
    (tmp_path / "own.toml").write_text(text_of("a state that the network sees scaled"))
    made = recipe.read(str(tmp_path / "own.toml"))
    monkeypatch.setattr("torch.mps.empty_cache", lambda: None)
    monkeypatch.setattr("torch.mps.driver_allocated_memory", lambda: 5e9)
    monkeypatch.setattr("torch.utils.data.dataloader._MultiProcessingDataLoaderIter", None)
    probe = Probe(open_cohort(prepared_once), Limits(1, 1e10), "mps")
    with pretended_mps(monkeypatch):
        measured = probe.measure(to_dict(made), 0)
    assert measured.memory == 5e9
    assert measured.seconds > 0
