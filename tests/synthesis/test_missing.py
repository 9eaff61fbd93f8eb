"""Folders that are written to more than once, by one run or several: scores are of what the last command made."""

import gzip
import json
import shutil
from functools import partial

import nibabel as nib
import pytest

from voxlate.scoring.evaluate import evaluate
from voxlate.synthesis.result import is_unchanged, write_images
from voxlate.system.files import read_json


@pytest.fixture
def two_ways(voxlate, prepared, cohort, tiny, tmp_path):
    """Runs of t1 to t2 and, trained on other cases, of t2 to t1."""
    turned = ["--set", 'data.source=["t2"]', "--set", 'data.target=["t1"]', "--set", 'title="back"']
    assert voxlate("prepare", cohort, "--out", tmp_path / "other", "--seed", "3").code == 0
    runs = [tmp_path / "there", tmp_path / "back"]
    for made, data, changes in ((runs[0], prepared, []), (runs[1], tmp_path / "other", turned)):
        answer = voxlate("train", tiny, "--data", data, "--out", made, *changes)
        assert answer.code == 0, answer.err
    return runs


def scored(voxlate, out, cohort, *options):
    """The metrics.json of an evaluation, which has to succeed."""
    answer = voxlate("evaluate", out, "--truth", cohort, *options, "--json")
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def scored_modalities(document):
    return {
        (row["case"], row["modality"]) for row in document["cases"] if row["answer"] == "synthesis"
    }


def test_scores_of_another_model_are_not_replaced_and_those_of_the_same_are_resumed(
    voxlate, two_ways, completing, cohort, tmp_path
):
    first = scored(voxlate, tmp_path / "o", cohort, "--run", two_ways[0], "--run", two_ways[1])
    before = {path: path.read_bytes() for path in (tmp_path / "o").glob("**/*") if path.is_file()}
    answer = voxlate("evaluate", tmp_path / "o", "--truth", cohort, "--run", completing)
    assert answer.code == 2
    assert "found images of another (case0: model: title" in answer.err
    assert "whose scores would be lost. Choose another folder." in answer.err
    assert {
        path: path.read_bytes() for path in (tmp_path / "o").glob("**/*") if path.is_file()
    } == before
    again = scored(voxlate, tmp_path / "o", cohort, "--run", two_ways[0], "--run", two_ways[1])
    assert again["cases"] == first["cases"]


def test_images_that_synth_made_are_not_replaced_by_an_evaluation_of_its_run(
    voxlate, completing, cohort, tmp_path
):
    out = tmp_path / "o"
    assert voxlate("synth", completing, cohort, "--missing", "t2", "--out", out).code == 0
    answer = voxlate("evaluate", out, "--truth", cohort, "--run", completing)
    assert answer.code == 2
    assert "case0: synth made them" in answer.err


def test_an_evaluation_says_that_it_makes_images_of_another_seed_again(
    voxlate, completing, cohort, tmp_path
):
    command = ("evaluate", tmp_path / "o", "--truth", cohort, "--run", completing, "--split", "val")
    assert voxlate(*command).code == 0
    answer = voxlate(*command, "--seed", "1")
    assert answer.code == 0
    assert "without_t1 made in another way (seed: 0 and 1) are synthesised again" in " ".join(
        answer.err.split()
    )


@pytest.mark.parametrize("place", ["done", "prepared", "elsewhere"])
def test_synth_never_replaces_the_provenance_of_something_else(
    voxlate, completing, cohort, tmp_path, place
):
    out, run = tmp_path / place, completing
    if place == "elsewhere":
        out.mkdir()
        (out / "provenance.json").write_text('{"scanner": "ours"}')
    before = {path: path.read_bytes() for path in out.glob("**/*") if path.is_file()}
    for command in (
        ("synth", run, cohort, "--missing", "t2", "--out", out),
        ("evaluate", out, "--truth", cohort, "--run", run),
    ):
        answer = voxlate(*command)
        assert answer.code == 2
        assert (
            f"{out}: expected a new folder, one of scans, or one that voxlate synth wrote, found "
            in answer.err
        )
        assert {path: path.read_bytes() for path in out.glob("**/*") if path.is_file()} == before
    made = voxlate("synth", run, cohort / "case0", "--missing", "t2", "--out", tmp_path / "new")
    assert made.code == 0, "the run still loads"


def test_a_provenance_of_something_else_in_a_case_is_kept_and_in_another_case_passed_over(
    voxlate, completing, cohort, tmp_path
):
    for case in ("case0", "case1"):
        (cohort / case / "provenance.json").write_text('{"inputs": ["scanner"]}')
    (cohort / "case0" / "t1.nii.gz").unlink()
    (cohort / "case2" / "t1.nii.gz").unlink()
    answer = voxlate("synth", completing, cohort, "--out", cohort)
    assert answer.code == 2
    assert (
        "case0: expected a new folder, one of scans, or one that voxlate synth wrote, found provenance"
        in answer.err
    )
    assert (cohort / "case0" / "provenance.json").read_text() == '{"inputs": ["scanner"]}'
    assert (cohort / "case2" / "desc-synthetic_t1.nii.gz").is_file()


def test_a_run_whose_provenance_is_of_something_else_is_refused_by_that_files_name(
    voxlate, run, cohort, tmp_path
):
    (run / "provenance.json").write_text('{"cases": ["case0"]}')
    answer = voxlate("synth", run, cohort / "case0", "--out", tmp_path / "o")
    assert answer.code == 2
    assert (
        "run/provenance.json: expected the provenance of a training, with its recipe, found one without"
        in answer.err
    )


def test_completing_in_place_scores_the_synthesis_and_not_the_scan(
    voxlate, completing, cohort, tmp_path
):
    shutil.copytree(cohort, tmp_path / "place")
    for source, out in ((tmp_path / "place", tmp_path / "place"), (cohort, tmp_path / "apart")):
        assert voxlate("synth", completing, source, "--missing", "t2", "--out", out).code == 0
    inside, apart = (scored(voxlate, tmp_path / name, cohort) for name in ("place", "apart"))
    assert list(inside["modalities"]) == ["t2"]
    assert inside["cases"] == apart["cases"]
    assert all(row["mae"] > 0 for row in inside["cases"])
    again = (
        "synth",
        completing,
        tmp_path / "place",
        "--missing",
        "t2",
        "--out",
        tmp_path / "place",
        "--seed",
        "1",
    )
    assert voxlate(*again).code == 0
    assert len(list(tmp_path.glob("place/*/t[12].nii.gz"))) == 12, "scans stay"


def test_images_of_other_models_do_not_stay_in_a_case(voxlate, completing, run, cohort, tmp_path):
    out = tmp_path / "o"
    assert voxlate("synth", completing, cohort, "--missing", "t2", "--out", out).code == 0
    answer = voxlate("synth", run, cohort, "--out", out)
    assert (
        "6 images of an earlier synthesis, which is not this one, are removed (case0/desc-synthetic_t2"
        in answer.err
    )
    assert sorted(path.name for path in (out / "case0").iterdir()) == [
        "provenance.json",
        "t2.nii.gz",
    ]
    assert voxlate("synth", run, cohort, "--out", tmp_path / "new").code == 0
    assert (
        scored(voxlate, out, cohort)["cases"] == scored(voxlate, tmp_path / "new", cohort)["cases"]
    )


def test_scores_of_images_that_are_gone_for_others_are_not_reported(
    voxlate, completing, cohort, tmp_path
):
    out = tmp_path / "o"
    assert voxlate("synth", completing, cohort, "--missing", "t1", "--out", out).code == 0
    scored(voxlate, out, cohort)
    assert voxlate("report", out).code == 0
    write_images(
        out / "case0",
        {"desc-synthetic_t2.nii.gz": partial(shutil.copyfile, cohort / "case0/t2.nii.gz")},
        {},
    )
    answer = voxlate("report", out)
    assert answer.code == 2
    assert "found case0/t1 changed since" in answer.err


def test_a_second_split_in_the_same_folder_is_scored_alone(voxlate, completing, cohort, tmp_path):
    splits = read_json(completing / "provenance.json")["data"]["splits"]
    for split in ("val", "test"):
        document = scored(voxlate, tmp_path / "o", cohort, "--run", completing, "--split", split)
        assert document["split"] == split
        assert {case for case, _ in scored_modalities(document)} == set(splits[split]) != set()
        lines = read_json(tmp_path / "o" / "scenarios.json")["scenarios"]
        assert {line["cases"] for line in lines} == {len(splits[split])}


def test_the_spread_of_more_samples_is_gone_with_them(voxlate, completing, cohort, tmp_path):
    def keys(samples):
        document = scored(
            voxlate,
            tmp_path / "o",
            cohort,
            "--run",
            completing,
            "--split",
            "val",
            "--samples",
            samples,
        )
        return {key for row in document["cases"] for key in row}

    assert "std" in keys(2)
    assert "std" not in keys(1)
    assert not list(tmp_path.glob("o/**/*_std*"))


def test_each_image_is_scored_by_the_run_that_made_it(voxlate, two_ways, cohort, tmp_path):
    out = tmp_path / "o"
    document = scored(voxlate, out, cohort, "--run", two_ways[0], "--run", two_ways[1])
    answers = {name: set(part["answers"]) for name, part in document["modalities"].items()}
    assert answers == {
        "t1": {"synthesis", "mean image", "copy of t2", "intensity table"},
        "t2": {"synthesis", "mean image", "copy of t1", "intensity table"},
    }
    trained = [
        set(read_json(one / "provenance.json")["data"]["splits"]["train"]) for one in two_ways
    ]
    assert trained[0] != trained[1]
    assert set(document["trained_on"]) == trained[0] | trained[1]
    made = read_json(out / "case0" / "provenance.json")
    assert "model" not in made
    assert "model" not in read_json(out / "provenance.json"), "several made what is here"
    titles = {name: own["model"]["title"] for name, own in made["made_without"].items()}
    assert titles == {"t1": "back", "t2": "tiny"}
    assert {name: list(own["inputs"]) for name, own in made["made_without"].items()} == {
        "t1": ["t2"],
        "t2": ["t1"],
    }
    assert voxlate("report", out).code == 0
    for folder in out.glob("without_*"):
        shutil.rmtree(folder)
    after = scored(voxlate, out, cohort)
    assert [after[key] for key in ("cases", "trained_on")] == [
        document[key] for key in ("cases", "trained_on")
    ]


def test_a_run_without_naive_baselines_is_said_next_to_one_that_has_them(
    voxlate, two_ways, cohort, tmp_path
):
    (two_ways[1] / "naive.safetensors").unlink()
    document = scored(voxlate, tmp_path / "o", cohort, "--run", two_ways[0], "--run", two_ways[1])
    sentence = "No naive baselines: the run of this image has none."
    assert document["naive_left_out"] == {f"case{n}/t1": sentence for n in range(6)}
    assert set(document["modalities"]["t1"]["answers"]) == {"synthesis"}


def test_a_modality_that_a_run_could_not_make_of_a_case_is_listed(
    voxlate, completing, cohort, tmp_path
):
    scored(voxlate, tmp_path / "o", cohort, "--run", completing)
    image = nib.load(
        cohort / "case2" / "t1.nii.gz"
    )  # t2 cannot be made of a scan that shows nothing
    nib.save(nib.Nifti1Image(image.get_fdata() * 0, image.affine), cohort / "case2" / "t1.nii.gz")
    answer = voxlate("evaluate", tmp_path / "o", "--truth", cohort, "--run", completing, "--json")
    assert answer.code == 2
    assert "not scored: case2/t2 (case2: expected t1 to show something" in answer.err
    assert scored_modalities(json.loads(answer.out)) == {
        (f"case{n}", name) for n in range(6) for name in ("t1", "t2") if n != 2
    }, (
        "neither the image of the scan that was there before is scored, nor one against a blank truth"
    )
    assert "(case2/t1): it shows the same value everywhere" in answer.err


def test_an_image_that_is_gone_or_changed_is_made_again(voxlate, run, cohort, tmp_path):
    out = tmp_path / "o"
    assert voxlate("synth", run, cohort, "--out", out).code == 0
    before = {path: path.read_bytes() for path in out.glob("*/t2.nii.gz")}
    (out / "case1" / "t2.nii.gz").unlink()
    shutil.copyfile(out / "case4" / "t2.nii.gz", out / "case3" / "t2.nii.gz")
    answer = voxlate("synth", run, cohort, "--out", out, "-v")
    assert answer.code == 0
    assert "note: 4 of 6 cases were synthesised before and are kept." in answer.err
    assert "2 cases are synthesised again: their images are gone, changed" in answer.err
    for path, content in before.items():
        assert (
            nib.load(path).get_fdata()
            == nib.Nifti1Image.from_bytes(gzip.decompress(content)).get_fdata()
        ).all()


def test_images_of_versions_that_recorded_none_are_scored_as_they_lie(
    voxlate, run, cohort, tmp_path
):
    out = tmp_path / "o"
    assert voxlate("synth", run, cohort, "--out", out).code == 0
    new = scored(voxlate, out, cohort)
    for path in out.glob("*/provenance.json"):
        path.write_text(
            json.dumps({key: one for key, one in read_json(path).items() if key != "images"})
        )
    assert scored(voxlate, out, cohort)["cases"] == new["cases"]
    answer = voxlate("synth", run, cohort, "--out", out)
    assert "6 cases are synthesised again" in answer.err, (
        "nobody knows whether they are what was made"
    )


def test_the_seed_of_an_evaluation_is_that_of_its_synthesis_and_its_intervals(
    voxlate, completing, cohort, tmp_path
):
    first, other = (
        scored(voxlate, tmp_path / f"o{seed}", cohort, "--run", completing, "--seed", seed)
        for seed in (0, 7)
    )
    assert first["images"] != other["images"]
    assert "seed 7" in other["modalities"]["t1"]["bootstrap"]
    assert read_json(tmp_path / "o7" / "case0" / "provenance.json")["seed"] == 7
    assert other["cases"] == [row.flat() for row in evaluate(tmp_path / "o7", cohort, seed=7).rows]


def test_only_files_that_were_listed_and_are_unchanged_are_removed(tmp_path):
    def content(text):
        return lambda path: path.write_text(text)

    (tmp_path / "scan.nii.gz").write_text("a scan")
    assert (
        write_images(
            tmp_path, {name: content(name) for name in ("a.nii.gz", "b.nii.gz", "c.nii.gz")}, {}
        )
        == []
    )
    assert is_unchanged(tmp_path)
    (tmp_path / "b.nii.gz").write_text("somebody's own")
    assert not is_unchanged(tmp_path)
    assert write_images(tmp_path, {"c.nii.gz": content("new")}, {}) == ["a.nii.gz"]
    assert sorted(path.name for path in tmp_path.glob("*.gz")) == [
        "b.nii.gz",
        "c.nii.gz",
        "scan.nii.gz",
    ]
    assert list(read_json(tmp_path / "provenance.json")["images"]) == ["c.nii.gz"]


def test_synthesis_of_an_evaluation_takes_the_options_that_synth_takes(
    voxlate, completing, cohort, tmp_path
):
    how = ("--set", "synth.sampler=ddpm", "--set", "steps=3", "--noise", "shared")
    assert scored(voxlate, tmp_path / "new", cohort, "--run", completing, *how)["cases"]
    stated = [read_json(path)["synth"] for path in (tmp_path / "new").glob("*/provenance.json")]
    assert stated
    assert all(
        (one["sampler"], one["steps"], one["noise"]["kind"]) == ("ddpm", 3, "shared")
        for one in stated
    )
    for option in (("--set", "steps=3"), ("--noise", "shared"), ("--missing", "all")):
        answer = voxlate("evaluate", tmp_path / "new", "--truth", cohort, *option)
        assert answer.code == 2
        assert f"{option[0]}: expected --run with it" in answer.err


def test_a_mask_or_region_that_names_nothing_is_refused_before_any_synthesis(
    voxlate, completing, cohort, tmp_path
):
    for wrong in (("--mask", "brian"), ("--region", "lesion=")):
        out = tmp_path / wrong[0]
        answer = voxlate("evaluate", out, "--truth", cohort, "--run", completing, *wrong)
        assert answer.code == 2
        assert "expected" in answer.err
        assert not list(out.rglob("*.nii.gz"))
