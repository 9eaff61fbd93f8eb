"""A model goes to a hub and back with the same images, without its patients, and nothing of a repository is executed."""

import json
import shutil
import sys
import warnings
from pathlib import Path

import pytest
import torch

from refusals import refuses

pytest.importorskip("huggingface_hub")

import huggingface_hub
from huggingface_hub import constants
from safetensors.torch import load_file

import voxlate as package
from hub_server import Hub, running
from rows import every_row, slow
from voxlate.base.hub import address_of
from voxlate.training.load import load
from voxlate.training.run import Run
from voxlate.training.weights import read_header, write_weights

TOKEN = "hf_a_secret_of_tests"
REPO = "clinic/t1-to-t2"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on this machine, with an empty cache."""
    own = Hub(TOKEN)
    with running(own) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield own


@pytest.fixture(scope="module")
def calibrations(tmp_path_factory) -> Path:
    """The calibration of the tiny run, once a test has made it."""
    return tmp_path_factory.mktemp("calibrations")


@pytest.fixture
def others(small_head, tmp_path) -> Path:
    """Three cases that the training did not see."""
    for number in range(3):
        small_head(tmp_path / "others" / f"person{number}", 10 + number)
    return tmp_path / "others"


@pytest.fixture
def calibrated(calibrations, run, others, quick_widths) -> Path:
    """The tiny run with a calibration."""
    if not any(calibrations.iterdir()):
        package.calibrate(run, others, device="cpu", progress=False)
        for path in run.glob("calibration.*"):
            shutil.copy(path, calibrations)
    return Path(shutil.copytree(calibrations, run, dirs_exist_ok=True))


def test_what_is_pushed_gives_the_same_image_bit_for_bit(hub, calibrated, cohort, voxlate, out):
    said = voxlate("push", calibrated, REPO, "--licence", "Apache-2.0").done()
    commit = hub.repositories[REPO][-1][0]
    address = f"hf://{REPO}@{commit}"
    assert f"voxlate synth {address} COHORT" in said.err + said.out
    case = cohort / "case0"
    voxlate("synth", address, case, "--out", out, "--device", "cpu").done()
    voxlate("synth", calibrated, case, "--out", out.parent / "own", "--device", "cpu").done()
    images, own = (
        {path.name: path.read_bytes() for path in (folder / "case0").glob("*.nii.gz")}
        for folder in (out, out.parent / "own")
    )
    assert images == own
    assert {"t2.nii.gz", "t2_low.nii.gz", "t2_high.nii.gz"} <= {*images}
    stated = json.loads((out / "case0" / "provenance.json").read_text())
    assert stated["model"]["hub"] == address


def test_no_byte_of_the_folder_names_a_patient_a_scan_or_a_place(
    calibrated, cohort, others, tmp_path
):
    done = package.push(calibrated, REPO, dry_run=tmp_path / "pushed")
    header = read_header(Run(calibrated).weights())
    names = [path.name for folder in (cohort, others) for path in folder.iterdir()]
    names += header["training_voxels"]
    assert len(names) == 9 + 8
    own = b"".join(path.read_bytes() for path in calibrated.rglob("*") if path.is_file())
    assert [name for name in names if name.encode() not in own] == []  # the run does name them
    assert {"README.md", "weights.safetensors", "anatomy.safetensors"} <= done.files.keys()
    hidden = [*names, str(tmp_path), cohort.name]
    assert all(word.isascii() for word in hidden)
    held = {file: (tmp_path / "pushed" / file).read_bytes() for file in done.files}
    assert [(f, word) for f in held for word in hidden if word.encode() in held[f]] == []


def test_the_card_states_its_licence_and_the_calibration(calibrated, tmp_path):
    package.push(calibrated, REPO, dry_run=tmp_path / "pushed", licence="MIT")
    card = (tmp_path / "pushed" / "README.md").read_text()
    data = huggingface_hub.ModelCard(card).data
    assert (data.license_name, data.library_name) == ("mit", "voxlate")
    assert "3 patients that training did not see" in card
    assert "case0" not in card


@slow
def test_the_card_of_a_starter_claims_no_patients_for_intervals_of_synthetic_heads(
    shipped_starters, monkeypatch, tmp_path
):
    monkeypatch.setattr("voxlate.training.starters.names.FOLDER", shipped_starters)
    starter = "starter:head-mr-to-ct"
    package.push(starter, REPO, dry_run=tmp_path / "pushed")
    card = (tmp_path / "pushed" / "README.md").read_text()
    assert "patients that training did not see" not in card
    (listed,) = package.list_starters(starter)
    limits = listed["card"]
    assert all(line.removeprefix("Limit: ") in card for line in limits if line.startswith("Limit"))
    assert load(tmp_path / "pushed", "cpu").calibration() is not None


def test_a_calibration_of_other_weights_is_left_out_and_said(calibrated, diffusion, tmp_path):
    (calibration,) = Run(calibrated).calibrations
    shutil.copy(calibration, diffusion / calibration.name)
    done = package.push(diffusion, REPO, dry_run=tmp_path / "pushed")
    assert [said.code for said in done.messages] == ["not-pushed"]
    assert {*done.files} == {"README.md", "weights.safetensors", "anatomy.safetensors"}


@slow
def test_a_second_push_replaces_the_files_of_the_first(hub, calibrated, tmp_path):
    first = package.push(calibrated, REPO)
    assert "calibration.mean.1.safetensors" in hub.repositories[REPO][-1][1]
    (calibration,) = Run(calibrated).calibrations
    calibration.unlink()
    second = package.push(calibrated, REPO)
    files = {*hub.repositories[REPO][-1][1]} - {".gitattributes"}
    assert files == {"README.md", "weights.safetensors", "anatomy.safetensors"}
    assert first.commit != second.commit
    assert load(first.address, "cpu").calibration() is not None
    assert load(second.address, "cpu").calibration() is None


@pytest.fixture
def pushed(hub, run) -> str:
    """The commit of a model on the hub."""
    return package.push(run, REPO).commit


def test_a_branch_is_resolved_and_the_hash_to_pin_is_stated(hub, pushed):
    with pytest.warns(UserWarning, match="Pin it") as said:
        model = load(f"hf://{REPO}", "cpu")
    (text,) = [str(one.message) for one in said]
    assert f"hf://{REPO}@{pushed}" in text
    assert address_of(model.origin) == f"hf://{REPO}@{pushed}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(f"hf://{REPO}@{pushed}", "cpu")


def test_a_pinned_model_is_read_from_the_cache_without_the_hub(hub, pushed, monkeypatch):
    address = f"hf://{REPO}@{pushed}"
    load(address, "cpu")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    model = load(address, "cpu")
    assert hub.asked == []
    assert model.network.recipe.title == "tiny"
    with refuses("expected the hub to allow this"):
        load(f"hf://{REPO}@{'0' * 40}", "cpu")


@every_row(
    "address, said",
    [
        ("hf://clinic/other", "expected the hub to allow this"),
        (f"hf://{REPO}@v9", "expected the hub to allow this"),
        (
            f"hf://{REPO}@{'1' * 40}",
            "expected the hub to allow this",
        ),
        ("hf://one", "expected a model as hf://NAME/REPO@REVISION, found another form"),
        ("hf://a--b/c..d", "expected the hub to allow this"),
    ],
)
def test_an_address_without_a_model_is_refused_in_one_sentence(
    hub, pushed, voxlate, cohort, address, said
):
    refused = voxlate("synth", address, cohort, "--out", cohort / "out").refusal
    assert said in refused
    assert TOKEN not in refused


def test_without_the_package_of_the_hub_the_extra_is_named(monkeypatch, run):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for use in (lambda: load(f"hf://{REPO}"), lambda: package.push(run, REPO)):
        with refuses(r"found it not installed. Run pip install 'voxlate\[hub\]'"):
            use()


def test_a_refused_push_says_so_and_never_shows_the_token(monkeypatch, hub, voxlate, run):
    monkeypatch.setenv("HF_TOKEN", "hf_another_token_of_tests")
    answer = voxlate("push", run, REPO)
    assert "hf_another" not in answer.out + answer.err


def test_a_repository_that_is_public_is_not_taken_for_a_private_one(hub, pushed, run):
    done = package.push(run, "clinic/hidden", private=True)
    assert hub.private == {"clinic/hidden"}
    assert hub.repositories["clinic/hidden"][-1][0] == done.commit
    with refuses("expected a private repository, found one that everybody"):
        package.push(run, REPO, private=True)
    assert len(hub.repositories[REPO]) == 1


MARKER = "raise SystemExit('executed')"


def test_code_and_pickles_of_a_repository_are_neither_downloaded_nor_read(hub, pushed, tmp_path):
    files = hub.repositories[REPO][-1][1]
    torch.save({"weights": torch.zeros(1)}, tmp_path / "state.pt")
    others = {"modeling.py": MARKER.encode(), "state.pt": (tmp_path / "state.pt").read_bytes()}
    commit = hub.commit(REPO, {**files, **others})
    folder = load(f"hf://{REPO}@{commit}", "cpu").origin
    assert {path.name for path in folder.iterdir()} == {
        "weights.safetensors",
        "anatomy.safetensors",
    }
    commit = hub.commit(REPO, others)
    with refuses("found none in the repository"):
        load(f"hf://{REPO}@{commit}", "cpu")


def test_a_model_that_names_foreign_code_is_refused_without_allow_code(
    hub, pushed, monkeypatch, tmp_path
):
    files = hub.repositories[REPO][-1][1]
    own = tmp_path / "weights.safetensors"
    own.write_bytes(files[own.name])
    header = {**read_header(own), "imports": ["strangers_hub"]}
    del header["sha256"]
    header["recipe"] |= {"net": {"kind": "strangers_hub:Layer"}}
    write_weights(own, load_file(own), header)
    commit = hub.commit(REPO, {**files, own.name: own.read_bytes()})
    (tmp_path / "strangers_hub.py").write_text(
        "from voxlate.base.errors import BadInput\nraise BadInput('imported')"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with refuses("needs the code of strangers_hub"):
        load(f"hf://{REPO}@{commit}", "cpu")
    with refuses("imported"):
        load(f"hf://{REPO}@{commit}", "cpu", allow_code=True)


def test_a_page_is_served_from_the_commit_that_it_began_with(hub, pushed, tmp_path):
    from voxlate.clinic.share_options import ServeOptions
    from voxlate.page.server import check_server

    settings = check_server([f"hf://{REPO}@{pushed}"], ServeOptions(data=tmp_path / "data"))
    ((label, place),) = settings.runs.items()
    assert label == f"hf://{REPO}@{pushed}"
    assert Run(Path(place)).weights().is_file()
