"""Folders that are written to more than once, by one run or several: scores are of what the last command made."""

import json
import shutil
from functools import partial

import nibabel as nib
import numpy as np
import pytest

from preparing import prepare
from rows import every_row, slow
from scans import change_scan, contents_of, keep_cases
from voxlate.base.files import read_json
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.evaluation.scoring.scores import read_scores
from voxlate.synthesis.provenance import is_unchanged, write_images


@pytest.fixture(scope="module")
def prepared_otherwise(cohort_once, tmp_path_factory):
    """The cases of `cohort` with other splits than in `prepared`."""
    out = tmp_path_factory.mktemp("otherwise") / "other"
    return prepare(cohort_once, out, workers=0, audit=False, seed=3).folder


@pytest.fixture
def two_cases(cohort):
    return keep_cases(cohort, "case0", "case1")


@pytest.fixture
def two_ways(changed, run, prepared_otherwise):
    """Options of runs of t1 to t2 and, trained on other cases, of t2 to t1; gives (options, runs)."""
    turned = {"data.source": '["t2"]', "data.target": '["t1"]', "title": "'back'"}
    back = changed("back", turned, prepared_otherwise)
    return ("--run", run, "--run", back), (run, back)


@pytest.fixture
def score(voxlate, cohort, out):
    """score(option, …): the metrics.json of an evaluation of `out`, or of `folder`, which has to succeed."""

    def evaluate(*options, folder=out):
        command = ("evaluate", folder, "--truth", cohort, "--json")
        return json.loads(voxlate(*command, *options).done().out)

    return evaluate


def scored_modalities(folder):
    return {tuple(label.split("/")) for label in read_scores(folder / "metrics.json").labels}


def table_of(folder):
    """The lines of the scores, but for those of times."""
    lines = (folder / "scores.csv").read_text().splitlines()
    return [line for line in lines if ",seconds_per_slice," not in line]


@slow
def test_scores_of_another_model_are_not_replaced_and_those_of_the_same_are_resumed(
    voxlate, score, two_ways, completing, two_cases, out
):
    score(*two_ways[0])
    before, first = contents_of(out), table_of(out)
    answer = voxlate("evaluate", out, "--truth", two_cases, "--run", completing).refusal
    assert "found images of another (case0: model: title" in answer
    assert "whose scores would be lost. Choose another folder." in answer
    assert contents_of(out) == before
    score(*two_ways[0])
    assert table_of(out) == first


def test_images_that_synth_made_are_not_replaced_by_an_evaluation_of_its_run(
    synth, voxlate, completing, cohort, out
):
    synth(completing, cohort / "case0", "--missing", "t2").done()
    answer = voxlate("evaluate", out, "--truth", cohort, "--run", completing).refusal
    assert "case0: synth made them" in answer


@every_row("place", ["done", "prepared", "elsewhere"])
def test_synth_never_replaces_the_provenance_of_something_else(
    voxlate, completing, cohort, prepared, place
):
    out = prepared.with_name(place)
    if place == "elsewhere":
        out.mkdir()
        (out / "provenance.json").write_text('{"scanner": "ours"}')
    before = contents_of(out)
    sentence = (
        f"{out}: expected a new folder, one of scans, or one that voxlate synth wrote, found "
    )
    for command in (
        ("synth", completing, cohort, "--missing", "t2", "--out", out),
        ("evaluate", out, "--truth", cohort, "--run", completing),
    ):
        assert sentence in voxlate(*command).refusal
        assert contents_of(out) == before


def test_a_provenance_of_something_else_in_a_case_is_kept_and_in_another_case_passed_over(
    voxlate, completing, cohort
):
    for case in ("case0", "case1"):
        (cohort / case / "provenance.json").write_text('{"inputs": ["scanner"]}')
    (cohort / "case0/t1.nii.gz").unlink()
    (cohort / "case2/t1.nii.gz").unlink()
    answer = voxlate("synth", completing, cohort, "--out", cohort).refusal
    sentence = "case0: expected a new folder, one of scans, or one that voxlate synth wrote, found provenance"
    assert sentence in answer
    assert (cohort / "case0/provenance.json").read_text() == '{"inputs": ["scanner"]}'
    assert (cohort / "case2/desc-synthetic_t1.nii.gz").is_file()


@slow
def test_completing_in_place_scores_the_synthesis_and_not_the_scan(
    voxlate, score, completing, two_cases, out, tmp_path
):
    place = shutil.copytree(two_cases, tmp_path / "place")
    command = ("synth", completing, place, "--missing", "t2", "--out")
    for to in (out, place):
        voxlate(*command, to).done()
    assert list(score(folder=place)["modalities"]) == ["t2"]
    score()
    assert table_of(place) == table_of(out)
    assert all(row.scores["mae"] > 0 for row in read_scores(out / "metrics.json").rows)
    voxlate(*command, place, "--seed", "1").done()
    assert len(list(place.glob("*/t[12].nii.gz"))) == 4, "scans stay"


@slow
def test_images_of_other_models_do_not_stay_in_a_case(synth, completing, run, two_cases, out):
    synth(completing, two_cases, "--missing", "t2").done()
    said = synth(run, two_cases).err
    sentence = "2 images of an earlier synthesis, which is not this one, are removed (case0/desc-synthetic_t2"
    assert sentence in said
    assert {path.name for path in (out / "case0").iterdir()} == {"provenance.json", "t2.nii.gz"}


@slow
def test_scores_of_images_that_are_gone_for_others_are_not_reported(
    synth, voxlate, score, completing, two_cases, out
):
    synth(completing, two_cases, "--missing", "t1").done()
    score()
    voxlate("report", out).done()
    copy = {"desc-synthetic_t2.nii.gz": partial(shutil.copyfile, two_cases / "case0/t2.nii.gz")}
    write_images(out / "case0", copy, {})
    assert "found case0/t1 changed since" in voxlate("report", out).refusal


@slow
def test_each_image_is_scored_by_the_run_that_made_it(voxlate, score, two_ways, out):
    options, runs = two_ways
    document = score(*options)
    for target, source in (("t1", "t2"), ("t2", "t1")):
        answers = {"synthesis", "mean image", f"copy of {source}", "intensity table"}
        assert set(document["modalities"][target]["answers"]) == answers
    first, other = (
        set(read_json(run / "provenance.json")["data"]["splits"]["train"]) for run in runs
    )
    assert first != other
    assert set(document["trained_on"]) == first | other
    made = {name: read_json(out / f"without_{name}/case0/provenance.json") for name in ("t1", "t2")}
    stated = {name: (own["model"]["title"], [*own["inputs"]]) for name, own in made.items()}
    assert stated == {"t1": ("back", ["t2"]), "t2": ("tiny", ["t1"])}
    voxlate("report", out).done()
    table = table_of(out)
    assert score()["trained_on"] == document["trained_on"]
    assert table_of(out) == table


@slow
def test_a_modality_that_a_run_could_not_make_of_a_case_is_listed(
    voxlate, score, completing, cohort, out
):
    """t2 cannot be made of a scan that shows nothing."""
    keep_cases(cohort, "case0", "case1", "case2")
    score("--run", completing)
    change_scan(cohort / "case2/t1.nii.gz", np.zeros_like)
    answer = voxlate("evaluate", out, "--truth", cohort, "--run", completing, "--json")
    assert (
        "case2/t2 (its image is of an earlier run; case2: expected t1 to show something"
        in answer.refusal
    )
    # Neither the image of the scan that was there before is scored, nor one against a blank truth.
    assert scored_modalities(out) == {
        (case, name) for case in ("case0", "case1") for name in ("t1", "t2")
    }
    assert "(case2/t1): it shows the same value everywhere" in answer.err


def test_an_image_that_is_gone_or_changed_is_made_again(synth, run, cohort, out):
    synth(run, cohort).done()
    before = {path: nib.load(path).get_fdata() for path in out.glob("*/t2.nii.gz")}
    (out / "case1/t2.nii.gz").unlink()
    shutil.copyfile(out / "case4/t2.nii.gz", out / "case3/t2.nii.gz")
    answer = synth(run, cohort, "-v").done()
    assert "4 of 6" in answer.err
    assert "2 cases are synthesised again: their images are gone, changed" in answer.err
    for path, image in before.items():
        np.testing.assert_array_equal(nib.load(path).get_fdata(), image)


@slow
def test_the_seed_of_an_evaluation_is_that_of_its_synthesis_and_its_intervals(
    score, completing, two_cases, out, tmp_path
):
    first = score("--run", completing, folder=tmp_path / "o0")
    other = score("--run", completing, "--seed", 7)
    assert first["images"] != other["images"]
    assert other["seed"] == 7
    assert read_json(out / "without_t2/case0/provenance.json")["seed"] == 7
    before = table_of(out)
    evaluate(out, two_cases, seed=7)
    assert table_of(out) == before


def test_only_files_that_were_listed_and_are_unchanged_are_removed(tmp_path):
    def content(text):
        return lambda path: path.write_text(text)

    (tmp_path / "scan.nii.gz").write_text("a scan")
    made = {f"{name}.nii.gz": content(name) for name in "abc"}
    assert write_images(tmp_path, made, {}) == []
    assert is_unchanged(tmp_path)
    (tmp_path / "b.nii.gz").write_text("somebody's own")
    assert not is_unchanged(tmp_path)
    assert write_images(tmp_path, {"c.nii.gz": content("new")}, {}) == ["a.nii.gz"]
    names = {path.name for path in tmp_path.glob("*.gz")}
    assert names == {"b.nii.gz", "c.nii.gz", "scan.nii.gz"}
    assert list(read_json(tmp_path / "provenance.json")["images"]) == ["c.nii.gz"]


@slow
def test_synthesis_of_an_evaluation_takes_the_options_that_synth_takes(
    voxlate, score, completing, two_cases, out
):
    how = ("--set", "synth.sampler=ddpm", "--set", "steps=3", "--set", "noise=shared")
    assert score("--run", completing, *how)["modalities"]
    stated = [read_json(path)["synth"] for path in out.glob("without_*/*/provenance.json")]
    assert stated
    for how in stated:
        assert (how["sampler"], how["steps"], how["noise"]["kind"]) == ("ddpm", 3, "shared")
    for option in (("--set", "steps=3"), ("--missing", "all")):
        answer = voxlate("evaluate", out, "--truth", two_cases, *option).refusal
        assert f"{option[0]}: expected --run with it" in answer


@every_row("wrong", [("--mask", "brian"), ("--regions", "lesion=")])
def test_a_mask_or_region_that_names_nothing_is_refused_before_any_synthesis(
    voxlate, completing, cohort, tmp_path, wrong
):
    command = ("evaluate", tmp_path, "--truth", cohort, "--run", completing)
    assert "expected" in voxlate(*command, *wrong).refusal
    assert not list(tmp_path.rglob("*.nii.gz"))
