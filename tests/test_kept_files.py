"""Every later version opens, self-tests and synthesises with the files of each minor version (release/keep.py wrote them)."""

import re
import tarfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from voxlate.synthesis.exported import load_exported as load_carried
from voxlate.training.load import load

ROOT = Path(__file__).parents[1]
ARCHIVES = sorted(ROOT.glob("tests/kept_files/*.tar.xz"))
ROUNDING = 1e-5  # of the largest value, between processors
TO_TORCH = 1e-3  # the same, between onnxruntime and torch


@pytest.fixture(scope="module", params=ARCHIVES)
def kept(request, tmp_path_factory):
    """The files of a version."""
    folder = tmp_path_factory.mktemp("kept")
    with tarfile.open(request.param) as archive:
        archive.extractall(folder, filter="data")
    return folder


def _images(folder):
    """The images of a folder and its maps, by name; 0.7 also wrote distances of patches."""
    return {
        path.name.removesuffix(".nii.gz"): nib.load(path).get_fdata(dtype=np.float32)
        for path in sorted(folder.rglob("*.nii.gz"))
        if not path.name.endswith("_unfamiliar.nii.gz")
    }


def _compare(found, expected, share):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.ptp(values) > 0, name
        atol = share * np.abs(values).max()
        np.testing.assert_allclose(found[name], values, rtol=0, atol=atol, err_msg=name)


def _compare_samples(found, expected):
    """Samples of 0.7 had noise of torch: their images have other values, and the same names and range."""
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].shape == values.shape
        assert found[name].mean() == pytest.approx(values.mean(), abs=float(np.ptp(values)) / 4)


def test_each_released_minor_version_since_0_7_is_kept_in_a_small_file():
    sections = re.findall(r"^## (\d+)\.(\d+)\.", (ROOT / "CHANGELOG.md").read_text(), re.M)
    released = {(int(major), int(minor)) for major, minor in sections}
    since = {f"{major}.{minor}" for major, minor in released if (major, minor) >= (0, 7)}
    assert since
    assert since <= {archive.name.removesuffix(".tar.xz") for archive in ARCHIVES}
    assert all(archive.stat().st_size < 300_000 for archive in ARCHIVES)


@pytest.mark.parametrize(("answer", "folder"), [("sample", "synthesised"), ("mean", "mean")])
@pytest.mark.parametrize("model", ["run", "hub"])
def test_runs_and_hub_folders_synthesise_the_kept_images(
    kept, typed, tmp_path, model, answer, folder
):
    options = f"--out out --answer {answer} --device cpu"
    typed(f"synth {kept}/{model} {kept}/scans/phantom_000 {options}").done()
    # since then, what is far from the body became background
    shown = _images(kept / "scans/phantom_000")["t1"]
    shown = shown > 0.3 * shown.max()
    made, expected = (
        {name: np.where(shown, image, 0) for name, image in _images(place).items()}
        for place in (tmp_path / "out", kept / folder)
    )
    if answer == "mean":
        _compare(made, expected, ROUNDING)
    else:
        _compare_samples(made, expected)


def test_the_calibration_of_a_run_is_read(kept):
    calibration = load(kept / "run", "cpu").calibration()
    assert calibration is not None
    assert calibration.header.patients == 3
    assert {"t2_low", "t2_high"} <= _images(kept / "synthesised").keys()


def test_the_onnx_model_passes_its_self_test_and_synthesises_the_kept_images(kept, tmp_path):
    model = load_carried(kept / "hub" / "onnx")
    model.synthesise({"t1": kept / "scans" / "phantom_000" / "t1.nii.gz"}).save(tmp_path)
    expected = _images(kept / "carried")
    assert {"t2", "t2_low", "t2_high"} <= expected.keys()
    _compare_samples(_images(tmp_path), expected)
    _compare({"t2": expected["t2"]}, {"t2": _images(kept / "synthesised")["t2"]}, TO_TORCH)
