"""The graphs of starters: on a processor onnxruntime computes them, with the weights of their own files."""

import pickle
import shutil

import numpy as np
import pytest

from rows import every_row
from voxlate.anatomy.phantom_cohort import write_cohort
from voxlate.base.errors import BadInput
from voxlate.base.files import read_json, write_json
from voxlate.training.load import load
from voxlate.training.run_graph import GRAPH, RunGraph
from voxlate.training.torch_network import TorchNetwork, network_of, open_run

STARTER = "head-mr-to-ct"
STARTERS = (STARTER, "brain-mr-to-mr")
MOST_APART_HU = 0.5


@pytest.fixture(scope="module")
def t1(tmp_path_factory):
    """The T1 of a small head."""
    folder = tmp_path_factory.mktemp("head")
    options = {"cases": 1, "size": (72, 88, 4), "lesion": "none", "modalities": ["t1"]}
    (case,) = write_cohort(folder, **options)
    return case / "t1.nii.gz"


@pytest.fixture(scope="module")
def model(shipped_starters):
    return load(shipped_starters / STARTER, "cpu").with_options(intervals=False)


def image_of(model, t1):
    made = model.synthesise({"t1": t1}, anyway=True, warn=lambda _: None)
    return made.volumes["ct"].data


def test_a_graph_gives_the_image_of_torch(model, t1):
    in_torch = open_run(model.origin, "cpu", False, None)
    theirs = image_of(in_torch.with_options(precision="float32", intervals=False), t1)
    ours = image_of(model, t1)
    assert np.ptp(ours) > 1000
    assert np.abs(ours - theirs).max() < MOST_APART_HU


def test_an_image_depends_on_no_number_of_threads_and_survives_the_way_to_a_worker(
    model, t1, monkeypatch
):
    images = []
    for threads in ("1", "2,1", "-3", "two"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        sent = pickle.loads(pickle.dumps(model))
        assert isinstance(sent.network, RunGraph)
        images.append(image_of(sent, t1))
    assert all(np.array_equal(image, images[0]) for image in images)


@every_row("name", STARTERS)
def test_every_starter_has_the_graph_of_its_weights(name, shipped_starters):
    model = load(shipped_starters / name, "cpu")
    assert isinstance(model.network, RunGraph)
    assert model.network.inputs[0] == "source"
    assert isinstance(network_of(model), TorchNetwork)


def test_other_options_than_a_graphs_own_are_those_of_torch(model):
    assert isinstance(model.with_options(precision="float32").network, RunGraph)
    assert isinstance(model.with_options(batch=2).network, TorchNetwork)
    assert isinstance(load(model.origin, "cpu", answer="mean").network, RunGraph)


def _of_other_weights(folder):
    stated = read_json(folder / GRAPH)
    write_json(folder / GRAPH, {**stated, "weights": "0" * 16})


def _of_other_tensors(folder):
    stated = read_json(folder / GRAPH)
    name = next(iter(stated["tensors"]))
    write_json(folder / GRAPH, {**stated, "tensors": {**stated["tensors"], name: "absent"}})


def _cut_short(folder):
    path = folder / "network.onnx"
    path.write_bytes(path.read_bytes()[:-100])


@every_row("change", [_of_other_weights, _of_other_tensors, _cut_short])
def test_a_graph_that_does_not_fit_its_weights_is_refused(change, shipped_starters, tmp_path):
    folder = shutil.copytree(shipped_starters / STARTER, tmp_path / "starter")
    assert isinstance(load(folder, "cpu").network, RunGraph)
    change(folder)
    with pytest.raises(BadInput):
        load(folder, "cpu")
