"""Files that version 0.6.0 and the last commit before the renames wrote; files_of_0_6/README.md says how."""

import csv
import json
import shutil
import tarfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from safetensors.numpy import load_file

from voxlate.base.files import read_json
from voxlate.evaluation.compare import compare
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.mask import foreground
from voxlate.training.model import load

OLD = ("version_0_6_0", "before_renames")
RUNS = [("version_0_6_0", "diffusion"), ("version_0_6_0", "gan")]
RUNS += [("before_renames", name) for name in ("diffusion", "gan", "two_stages")]
ROUNDING = 1e-5  # of the largest value; on the processor that wrote them, images of before_renames are bit-identical
SINCE = {
    "wrong_truths",
    "wrong_truths_scored",
    "messages",
}  # keys of scores that came later
LATER_PREFIX = "desc-synthetic_"  # of completed images, in names since version 0.6.0


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files_of_0_6")
    with tarfile.open(Path(__file__).parent / "files_of_0_6" / "files.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def files(unpacked, tmp_path):
    """A copy that a test may write into."""
    return shutil.copytree(unpacked, tmp_path / "files")


def _images(folder: Path) -> dict[str, np.ndarray]:
    return {
        path.name.removeprefix(LATER_PREFIX): nib.load(path).get_fdata(dtype=np.float32)
        for path in sorted(folder.glob("*.nii.gz"))
    }


def _losses(run: Path) -> list[float]:
    """The loss of each of the four steps."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"]["total"] for line in lines if "loss" in line}
    assert sorted(losses) == [1, 2, 3, 4]
    return list(losses.values())


@pytest.mark.parametrize("version", OLD)
def test_a_prepared_cohort_opens_with_its_cases_splits_and_voxels(version, unpacked):
    cohort = open_cohort(unpacked / version / "prepared")
    assert {name: len(cases) for name, cases in cohort.splits.items()} == {
        "train": 3,
        "val": 1,
        "test": 2,
    }
    assert cohort.units == {"t1": "a.u.", "t2": "a.u."}
    for entry in cohort.cases:
        scan = nib.load(unpacked / "scans" / entry.case / "t1.nii.gz").get_fdata(dtype=np.float32)
        prepared = cohort.case(entry.case).volume("t1").data
        assert sorted(scan.ravel()) == pytest.approx(sorted(prepared.ravel()))


@pytest.mark.parametrize(("version", "name"), RUNS)
def test_a_run_synthesises_the_images_that_the_old_code_wrote(
    version, name, voxlate, unpacked, tmp_path
):
    missing = ("--missing", "t1") if name == "gan" else ()
    case = unpacked / "scans" / "phantom_001"
    answer = voxlate(
        "synth", unpacked / version / name, case, "--out", tmp_path, *missing, "--device", "cpu"
    )
    assert answer.code == 0, answer.err
    expected = _images(unpacked / version / "synthesised" / name / "phantom_001")
    found = _images(tmp_path / "phantom_001")
    if version == "before_renames" and name == "diffusion":
        assert {
            "t2.nii.gz",
            "t2_low.nii.gz",
            "t2_high.nii.gz",
        } < expected.keys()  # the calibration's intervals
    assert found.keys() == expected.keys()
    shown = "t2" if missing else "t1"
    body = foreground(read_volume(case / f"{shown}.nii.gz", shown)).T  # air is filled since 0.7
    assert body.mean() > 0.3
    for file, values in expected.items():
        # a distance of 0 is the root of a sum that float32 rounds
        atol = 1e-3 if "unfamiliar" in file else ROUNDING * np.abs(values).max()
        np.testing.assert_allclose(found[file][body], values[body], rtol=0, atol=atol, err_msg=file)


def test_a_calibration_states_what_it_was_fitted_to(unpacked):
    calibration = load(unpacked / "before_renames" / "diffusion").calibration()
    assert calibration is not None
    stated = read_json(
        unpacked / "before_renames" / "synthesised" / "diffusion" / "provenance.json"
    )["calibration"]
    assert calibration.header.patients == stated["patients"] == 2
    assert calibration.header.coverage == stated["coverage"] == 0.9
    assert sorted(calibration.header.cases) == ["phantom_001", "phantom_004"]


def test_an_interrupted_training_resumes_and_ends_with_the_same_weights(
    files, voxlate, monkeypatch
):
    monkeypatch.chdir(files / "before_renames")
    answer = voxlate(
        "train", "diffusion.toml", "--data", "prepared", "--out", "stopped", "--device", "cpu"
    )
    assert answer.code == 0, answer.err
    assert _losses(Path("stopped")) == pytest.approx(_losses(Path("diffusion")), rel=1e-4)
    expected, found = (
        load_file("diffusion/weights.safetensors"),
        load_file("stopped/weights.safetensors"),
    )
    assert found.keys() == expected.keys()
    for tensor, values in expected.items():
        np.testing.assert_allclose(found[tensor], values, rtol=0, atol=1e-5, err_msg=tensor)


def test_a_prepared_cohort_of_version_0_6_0_trains_a_recipe_of_its_time(
    files, voxlate, monkeypatch
):
    monkeypatch.chdir(files / "version_0_6_0")
    answer = voxlate(
        "train", "diffusion.toml", "--data", "prepared", "--out", "again", "--device", "cpu"
    )
    assert answer.code == 0, answer.err
    assert _losses(Path("again")) == pytest.approx(_losses(Path("diffusion")), rel=1e-4)


@pytest.mark.parametrize("version", OLD)
def test_scores_keep_their_columns_keys_and_values(version, voxlate, files, monkeypatch):
    monkeypatch.chdir(files / version)
    expected = json.loads(Path("evaluate.json").read_text())
    old_csv = Path("synthesised/diffusion/metrics.csv").read_text().splitlines()
    answer = voxlate("evaluate", "synthesised/diffusion", "--truth", "../scans", "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert expected.keys() <= found.keys()
    if version == "before_renames":
        assert found.keys() - expected.keys() <= SINCE
    columns = csv.DictReader(old_csv).fieldnames
    new_csv = Path("synthesised/diffusion/metrics.csv").read_text().splitlines()
    assert [name for name in csv.DictReader(new_csv).fieldnames if name in columns] == columns
    ours = {(row["case"], row["answer"]): row for row in found["cases"]}
    for row in expected["cases"]:
        for key, value in row.items():
            new = ours[row["case"], row["answer"]][key]
            assert new == (pytest.approx(value, rel=1e-4) if isinstance(value, float) else value), (
                key
            )


def test_scores_of_before_the_renames_are_compared(files):
    folder = files / "before_renames" / "synthesised" / "diffusion"
    copy = shutil.copytree(folder, folder.parent / "copy")
    errors = compare([folder, copy]).document["modalities"]["t2"]["metrics"]["mae"]["methods"]
    assert errors["copy"] == errors["diffusion"]
    assert errors["copy"]["mean"] == pytest.approx(0.3533, abs=1e-4)
