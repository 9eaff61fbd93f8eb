"""A model folder gives torch's images without torch, and is refused where anything in it differs."""

import dataclasses
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from refusals import refuses

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from carried import KINDS, head, tiny_model
from rows import every_row, slow
from voxlate.base.files import read_json, sha256_of
from voxlate.exchange.export import _write_description, export_model
from voxlate.scans.formats.io import write_volume
from voxlate.synthesis.exported import DESCRIPTION, NETWORK, read_model
from voxlate.synthesis.exported import load_exported as load


@pytest.fixture(scope="module")
def carried(tmp_path_factory):
    """A regression: its folder and what describes it."""
    path = tmp_path_factory.mktemp("carried") / "MODEL"
    return path, export_model(tiny_model(QUICK), path, licence="CC0")


@pytest.fixture(scope="module")
def folder(carried) -> Path:
    """The folder of a regression."""
    return carried[0]


QUICK = "slices, their neighbours and the mirror image"  # test_browser_page.py exports a flow
SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS if kind != QUICK]


@pytest.mark.parametrize("kind", [QUICK, *SLOW])
def test_the_images_without_torch_are_those_of_torch(kind, carried, tmp_path):
    model, path = tiny_model(kind), tmp_path / "MODEL"
    path, description = carried if kind == QUICK else (path, export_model(model, path))
    assert description.graph.largest_loss < 1e-4
    expected = model.synthesise({"t1": head("LPS")}, seed=5).files
    sent = pickle.loads(pickle.dumps(load(path)))  # as to workers
    found = sent.synthesise({"t1": head("LPS")}, seed=5).files
    assert found.keys() == expected.keys()
    for name, volume in expected.items():
        assert np.ptp(volume.data) > 1, name
        apart = np.abs(found[name].data - volume.data)
        assert apart.max() < 1e-3 * 1000, name
        assert apart.mean() < 1e-4 * 1000, name


@slow
def test_a_graph_takes_any_number_of_patches(tmp_path):
    model = tiny_model("a completion").with_options(batch=4)
    export_model(model, tmp_path / "MODEL")
    assert_same_images(model, tmp_path / "MODEL", "desc-synthetic_t2")


@slow
def test_a_graph_whose_number_of_patches_was_traced_takes_one_at_a_time(tmp_path, monkeypatch):
    model = tiny_model("three planes").with_options(batch=4)
    once = model.network.method.net.forward
    monkeypatch.setattr(
        model.network.method.net, "forward", lambda given: _with_constant(once(given))
    )
    assert export_model(model, tmp_path / "MODEL").graph.single
    assert_same_images(model, tmp_path / "MODEL", "t2")


def assert_same_images(model, exported, name):
    expected = model.synthesise({"t1": head()}).files[name].data
    found = load(exported).synthesise({"t1": head()}).files[name].data
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.ptp(expected))


def _with_constant(output):
    """The same output, whose first axis is a constant of a trace."""
    image = output.image
    return dataclasses.replace(output, image=image.reshape(len(image), *image.shape[1:]))


@every_row(
    "line, code",
    [
        ("check MODEL scan.nii.gz", 0),
        ("info MODEL", 0),
        ("synth MODEL t1=scan.nii.gz --out OUT --answer mean", 2),
        ("synth MODEL t1=scan.nii.gz --out OUT --device cuda", 2),
        ("synth MODEL t1=scan.nii.gz --out OUT --samples 3", 2),
        ("synth MODEL flair=scan.nii.gz --out OUT", 2),
        ("push MODEL a/b --dry-run NEW", 2),
        ("export MODEL --out NEW", 2),
    ],
)
def test_commands_take_an_exported_model_without_options_of_its_network(
    line, code, folder, tmp_path, voxlate
):
    places = {"MODEL": folder, "OUT": tmp_path / "out", "NEW": tmp_path / "new"}
    write_volume(scan := tmp_path / "scan.nii.gz", head())
    words = [places.get(word, word.replace("scan.nii.gz", str(scan))) for word in line.split()]
    assert voxlate(*words).code == code
    assert not [*(tmp_path / "out").glob("*/*.nii.gz")]


@every_row(
    "name, old, new, words",
    [
        (NETWORK, b"", b"\0", "its hash differs"),
        (DESCRIPTION, b'"CC0"', b'"MIT"', "checksum differs"),
    ],
)
def test_an_edited_file_is_refused(name, old, new, words, folder, tmp_path):
    file = shutil.copytree(folder, tmp_path / "MODEL") / name
    file.write_bytes(file.read_bytes().replace(old, new, 1))
    with refuses(words):
        load(tmp_path / "MODEL")


def _largest(graph):
    return max(graph.graph.initializer, key=lambda one: len(one.raw_data))


def _in_another_file(graph) -> None:
    weights = _largest(graph)
    weights.ClearField("raw_data")
    weights.data_location = 1
    weights.external_data.add(key="location", value="../elsewhere")


def _of_another_image(graph) -> None:
    import onnx.numpy_helper as helper

    array = helper.to_array(_largest(graph)) * np.float32(1.5)
    _largest(graph).CopyFrom(helper.from_array(array, _largest(graph).name))


def _too_new(graph) -> None:
    graph.opset_import[0].version = 99


@every_row(
    "change, words",
    [
        (_of_another_image, "expected the image of its self-test"),
        (_too_new, "expected a graph that onnxruntime"),
        (_in_another_file, "expected a graph that onnxruntime"),
    ],
)
def test_a_graph_that_is_not_the_exported_one_is_refused(change, words, folder, tmp_path):
    import onnx

    copy = Path(shutil.copytree(folder, tmp_path / "MODEL"))
    description, graph = read_model(copy), onnx.load(copy / NETWORK)
    change(graph)
    (copy / NETWORK).write_bytes(graph.SerializeToString())
    files = {**description.files, NETWORK: sha256_of(copy / NETWORK)}
    _write_description(copy, dataclasses.replace(description, files=files))
    with refuses(words):
        load(copy)


def test_a_folder_of_patients_names_none(folder):
    stated = read_json(folder / DESCRIPTION)
    assert stated["licence"] == "CC0"
    facts = stated["facts"]
    assert not any(facts[name] for name in ("seen_voxels", "splits"))
