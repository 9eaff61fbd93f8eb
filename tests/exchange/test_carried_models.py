"""A model folder gives torch's images without torch, and is refused where anything in it differs."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from refusals import refuses

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from carried import KINDS, head, tiny_model
from rows import every_row, slow
from voxlate.base.files import read_json, sha256_of, write_json
from voxlate.exchange.command import main
from voxlate.exchange.export import _write_description, export_model
from voxlate.exchange.model_file import DESCRIPTION, NETWORK, read_model
from voxlate.exchange.onnx_file import check_graph
from voxlate.exchange.run import load
from voxlate.scans.formats.io import content_hash, is_synthetic, read_volume, write_volume


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
    found = load(path).synthesise({"t1": head("LPS")}, seed=5).files
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


def test_the_runner_computes_scans_that_are_not_to_be_trusted_only_where_asked(
    folder, tmp_path, out
):
    scan = tmp_path / "t1.nii.gz"
    write_volume(scan, dataclasses.replace(head(), data=np.sign(head().data)))
    assert run(folder, scan, out) == 3
    assert not out.exists()
    assert run(folder, scan, out, "--anyway") == 3
    assert read_json(out / "provenance.json")["anyway"] is True


@slow
@every_row("weights, share, loss", [("float16", 0.7, 5e-3), ("int8", 0.5, 0.2)])
def test_smaller_weights_make_a_smaller_file_and_state_their_loss(
    weights, share, loss, folder, tmp_path
):
    stated = export_model(tiny_model(QUICK), tmp_path / "MODEL", weights).graph
    assert 1e-6 < stated.mean_loss <= stated.largest_loss < loss
    sizes = [(path / NETWORK).stat().st_size for path in (tmp_path / "MODEL", folder)]
    weights_alone = 8 * 8 * 9 * 4  # of one convolution: a tiny graph is mostly nodes
    assert sizes[0] < sizes[1] - (1 - share) * weights_alone
    load(tmp_path / "MODEL")


@pytest.fixture
def scan(tmp_path) -> Path:
    """A scan."""
    write_volume(tmp_path / "scan.nii.gz", head())
    return tmp_path / "scan.nii.gz"


def run(folder: Path, given: object, out: Path, *options: str) -> int:
    return main([str(folder), str(given), "--out", str(out), *options])


def test_the_command_writes_the_image_and_its_provenance(folder, scan, out):
    assert run(folder, f"t1={scan}", out) == 0
    image = read_volume(out / "t2.nii.gz", "t2")
    assert image.grid.shape == (7, 26, 22)
    assert is_synthetic(out / "t2.nii.gz")
    stated = read_json(out / "provenance.json")
    assert stated["model"]["title"] == QUICK
    assert stated["inputs"] == {"t1": {"sha256": content_hash(scan)}}
    assert "not a medical device" in stated["notice"]


def test_a_scan_of_another_modality_is_refused_in_one_sentence(folder, out, capsys):
    assert run(folder, "flair=scan.nii.gz", out) == 2
    assert capsys.readouterr().err.startswith("voxlate-run: scan: ")
    assert not out.exists()


def test_the_command_removes_only_its_own_older_files_of_the_same_scans(folder, scan, out):
    assert run(folder, f"t1={scan}", out) == 0
    stated = read_json(out / "provenance.json")
    for name in ("t2_low.nii.gz", "t2_high.nii.gz"):
        stated["images"][name] = stated["images"]["t2.nii.gz"]
    write_json(out / "provenance.json", stated)
    shutil.copyfile(out / "t2.nii.gz", out / "t2_low.nii.gz")
    (out / "t2_high.nii.gz").write_bytes(b"of somebody else")
    for volume, code in ((head(), 0), (head("LPS"), 2)):
        write_volume(scan, volume)
        assert run(folder, f"t1={scan}", out) == code
        found = {path.name for path in out.iterdir()}
        assert found == {"t2.nii.gz", "t2_high.nii.gz", "provenance.json"}


def test_the_command_replaces_no_file_that_it_did_not_write(folder, scan):
    own = scan.rename(scan.with_name("t2.nii.gz"))
    before = own.read_bytes()
    assert run(folder, f"t1={own}", own.parent) == 2
    assert own.read_bytes() == before


@every_row("option", [["--seed", "-1"], ["--threads", "-3"], ["--seed", "1.5"]])
def test_a_number_that_is_not_whole_is_refused(option, folder, out):
    with pytest.raises(SystemExit, match="2"):
        run(folder, "t1=scan.nii.gz", out, *option)


def test_an_output_folder_that_cannot_be_made_is_one_sentence(folder, scan, capsys):
    assert run(folder, f"t1={scan}", scan / "new" / "out") == 2
    assert "expected a folder to write in" in capsys.readouterr().err


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
    _largest(graph).data_location = 1
    _largest(graph).external_data.add(key="location", value="../elsewhere")


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
        (_too_new, "found 99"),
        (_in_another_file, "expected all weights inside the file"),
    ],
)
def test_a_graph_that_is_not_the_exported_one_is_refused(change, words, folder, tmp_path):
    import onnx

    copy = Path(shutil.copytree(folder, tmp_path / "MODEL"))
    description, graph = read_model(copy).description, onnx.load(copy / NETWORK)
    change(graph)
    (copy / NETWORK).write_bytes(graph.SerializeToString())
    files = {**description.files, NETWORK: sha256_of(copy / NETWORK)}
    _write_description(copy, dataclasses.replace(description, files=files))
    with refuses(words):
        load(copy)


def test_a_file_that_is_no_graph_is_refused(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"\xff" * 40)
    with refuses("expected a graph of ONNX"):
        check_graph(tmp_path / "x.onnx", 17, 21)


def test_a_folder_of_patients_names_none(folder):
    stated = read_json(folder / DESCRIPTION)
    assert stated["licence"] == "CC0"
    facts = stated["facts"]
    assert not any(facts[name] for name in ("seen_voxels", "seen_signatures", "splits"))


def test_images_of_other_arrays_are_not_written_over_and_no_option_is_taken(folder, tmp_path):
    model = load(folder)
    for _ in range(2):
        written = model.synthesise({"t1": head()}).save(tmp_path / "out")
    before = written[0].read_bytes()
    with refuses():
        model.synthesise({"t1": head("LPS")}).save(tmp_path / "out")
    assert written[0].read_bytes() == before
    with refuses():
        model.synthesise({"t1": head()}, samples=2)
