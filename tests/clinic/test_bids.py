"""`synth --bids`: the images as a BIDS derivative, with the names and files that its validator asks for."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rows import every_row, slow
from voxlate.base.files import read_json
from voxlate.clinic.bids import SUFFIXES, entities_of, image_name

DERIVED = Path("derivatives", "voxlate")


@pytest.fixture
def dataset(cohort, tmp_path):
    """A BIDS dataset of two subjects, one with two sessions."""
    root = tmp_path / "dataset"
    names = {"case0": "sub-01", "case1": "sub-02/ses-pre", "case2": "sub-02/ses-post"}
    for case, name in names.items():
        folder = root / name / "anat"
        folder.mkdir(parents=True)
        prefix = name.replace("/", "_")
        shutil.copy(cohort / case / "t1.nii.gz", folder / f"{prefix}_acq-mprage_T1w.nii.gz")
    description = {"Name": "Made-up heads", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    return root


def files_below(root: Path) -> list[str]:
    return sorted(str(one.relative_to(root)) for one in root.rglob("*") if one.is_file())


def test_a_bids_dataset_gives_a_bids_derivative(voxlate, run, dataset, out):
    voxlate("synth", run, dataset, "--out", out, "--bids").done()
    root = out / DERIVED
    names = ("sub-01", "sub-02/ses-post", "sub-02/ses-pre")
    images = [f"{name}/anat/{name.replace('/', '_')}_desc-synthetic_T2w" for name in names]
    expected = {f"{image}{ending}" for image in images for ending in (".json", ".nii.gz")}
    expected |= {".bidsignore", "README", "dataset_description.json"}
    assert {*files_below(root)} == expected
    description = read_json(root / "dataset_description.json")
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "voxlate"
    sidecar = read_json(root / f"{images[0]}.json")
    assert sidecar["VoxlateProvenance"]["model"]["title"] == "tiny"
    image = out / "sub-01/t2.nii.gz"
    assert (root / f"{images[0]}.nii.gz").read_bytes() == image.read_bytes()


@slow
def test_cases_of_other_names_are_subjects_and_a_second_run_removes_older_maps(
    voxlate, diffusion, cohort, out
):
    command = ("synth", diffusion, cohort / "case0", "--out", out, "--bids")
    voxlate(*command, "--samples", 2).done()
    folder = out / DERIVED / "sub-case0/anat"
    prefix = "sub-case0_desc-synthetic"
    both = [f"{prefix}StdUncalibrated_T2w", f"{prefix}_T2w"]
    assert files_below(folder) == [f"{one}{end}" for one in both for end in (".json", ".nii.gz")]
    sidecar = read_json(folder / f"{both[0]}.json")
    assert sidecar["Description"].startswith("Standard deviation of the samples, not calibrated")
    voxlate(*command, "--samples", 1).done()
    assert files_below(folder) == [f"{prefix}_T2w.json", f"{prefix}_T2w.nii.gz"]


def test_a_case_with_the_label_of_another_one_is_refused_before_the_synthesis(
    voxlate, run, cohort, out
):
    (cohort / "case0").rename(cohort / "case_1")
    refused = voxlate("synth", run, cohort, "--out", out, "--bids").refusal
    assert "which would both be sub-case1." in refused
    assert not out.exists()


def test_the_dataset_itself_is_no_output_folder_and_a_format_that_bids_does_not_have_is_refused(
    voxlate, run, dataset
):
    command = ("synth", run, dataset, "--out", dataset, "--bids")
    assert "expected an output folder beside the BIDS dataset" in voxlate(*command).refusal
    assert "which BIDS allows, found mha" in voxlate(*command, "--format", "mha").refusal


@every_row(
    "case, scan, entities",
    [
        ("anna_b-3", "t1.nii", {"sub": "annab3"}),
        ("sub-01_ses-2", "t1.nii.gz", {"sub": "01", "ses": "2"}),
        ("ses-2", "sub-7_ses-2_acq-x_run-1_T1w.nii.gz", {"sub": "7", "ses": "2", "run": "1"}),
        ("x", "sub-7_ses-a%b_T1w.nii", {"sub": "x"}),
    ],
)
def test_entities_come_from_a_scan_with_a_bids_name_else_from_the_case(case, scan, entities):
    assert entities_of(case, Path(scan)) == entities


@every_row(
    "modality, end, name",
    [
        ("t1c", "", "sub-1_ses-2_ce-gadolinium_desc-synthetic_T1w"),
        ("flair", "_low", "sub-1_ses-2_desc-syntheticLow_FLAIR"),
        ("ct", "", "sub-1_ses-2_desc-synthetic_CT"),
        ("tof", "", "sub-1_ses-2_desc-synthetic_angio"),
    ],
)
def test_a_modality_has_the_suffix_of_the_specification(modality, end, name):
    place, suffix = image_name({"ses": "2", "sub": "1"}, modality, end)
    assert place == Path("sub-1", "ses-2", "anat", name)
    assert (suffix in SUFFIXES.values()) == (modality != "ct")


def _validator() -> str:
    beside = Path(sys.executable).parent / "bids-validator-deno"
    found = shutil.which("bids-validator-deno") or (str(beside) if beside.is_file() else "")
    if not found:
        pytest.skip("the BIDS validator is not installed: pip install bids-validator-deno")
    return found


def errors_of(root: Path) -> list[tuple[str, str]]:
    """Code and place of each error that the validator reports."""
    said = subprocess.run(
        [_validator(), str(root), "--format", "json"], capture_output=True, text=True, timeout=300
    )
    found = json.loads(re.sub(r"\x1b\[[0-9;]*m", "", said.stdout))["issues"]["issues"]
    return [
        (one["code"], one.get("location", "")) for one in found if one.get("severity") == "error"
    ]


@slow
def test_the_bids_validator_finds_no_error(voxlate, run, diffusion, dataset, cohort, out):
    voxlate("synth", diffusion, dataset, "--out", out, "--bids", "--samples", 2).done()
    assert errors_of(out / DERIVED) == []
    wrong = out / DERIVED / "sub-01/anat/sub-01_synthetic.nii.gz"
    wrong.write_bytes(b"")
    assert errors_of(out / DERIVED) != []  # the validator sees names that are wrong
