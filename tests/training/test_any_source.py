"""A model that takes any one of several contrasts: each scan of a case is the source of an item of its own."""

import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import voxlate as package
from rows import every_row
from voxlate.anatomy.cohort import write_cohort
from voxlate.anatomy.physics import Contrast, PhysicsSettings
from voxlate.base.errors import BadInput
from voxlate.checks.prepare import prepare
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.images.intensity import Percentile
from voxlate.training.batches.any_source import with_any_source
from voxlate.training.batches.batches import Batches, validation_batches
from voxlate.training.batches.patches import DataSettings, read_pair
from voxlate.training.recipe.provenance import splits_of_training

SCANS = {  # contrasts of each case without t2; p4 is the validation case, and p5 has none
    "p0": ("t1", "flair"),
    "p1": ("t1",),
    "p2": ("flair",),
    "p3": ("t1", "flair", "ct"),
    "p4": ("t1", "flair"),
    "p5": (),
}
DATA = DataSettings(
    source=["mr"], target=["t2"], any_source=("t1", "flair"), patch=(1, 24, 20), stack=1
)
MAPS = {name: Percentile(low=0, high=99.5, floor=0) for name in ("mr", "t1", "flair", "t2")}
PLAN = ("--mode", "mean", "--minutes", 0.5, "--set", "train.steps=4")


def write_cases(folder: Path, small_head) -> Path:
    """Cases by SCANS; flair is t1 squared, with another scale."""
    for number, (case, names) in enumerate(SCANS.items()):
        wanted = ["t2", *(name for name in names if name != "flair")]
        small_head(folder / case, number, modalities=(*wanted, "t1"))
        t1 = nib.load(folder / case / "t1.nii.gz")
        if "flair" in names:
            flair = nib.Nifti1Image(np.asarray(t1.dataobj) ** 2 / 50, t1.affine)
            nib.save(flair, folder / case / "flair.nii.gz")
        if "t1" not in names:
            (folder / case / "t1.nii.gz").unlink()
    rows = [f"{case},{'val' if case == 'p4' else 'train'}" for case in SCANS]
    (folder / "cases.csv").write_text("\n".join(["case,split", *rows]))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory, small_head):
    """The scans, the prepared cohort and a run of `train auto` on it; tests change none of them."""
    folder = tmp_path_factory.mktemp("any")
    cases = write_cases(folder / "cases", small_head)
    prepare(cases, folder / "prepared", workers=0, audit=False)
    return folder


@pytest.fixture
def cohort(folders):
    return open_cohort(folders / "prepared")


def test_each_scan_of_a_case_is_the_source_of_a_case_of_its_own(cohort):
    seen = with_any_source(cohort, ("t1", "flair"), "mr")
    train = ["t1 of p0", "flair of p0", "t1 of p1", "flair of p2", "t1 of p3", "flair of p3", "p5"]
    assert seen.splits == {"train": train, "val": ["t1 of p4", "flair of p4"], "test": []}
    assert seen.on_disk(seen.splits["train"]) == cohort.splits["train"]
    assert seen.digest == cohort.digest
    stored, shown = cohort.case("p3"), seen.case("flair of p3")
    assert shown.header.statistics["mr"] == stored.header.statistics["flair"]
    assert np.array_equal(shown.arrays["mr"], stored.arrays["flair"])
    assert np.array_equal(shown.mask(["mr"]), stored.mask(["flair"]))
    assert np.array_equal(shown.mask(["t2"]), stored.mask(["t2"]))


def test_an_epoch_shows_each_slice_once_with_each_scan_on_that_scan_s_own_scale(cohort):
    seen = with_any_source(cohort, DATA.any_source, "mr")
    batches = Batches(seen, DATA, MAPS, seed=3, steps=36)  # 6 scans with t2, of 6 slices
    assert len(batches.items) == 36
    assert {case for case, _ in batches.items} == {*seen.splits["train"]} - {"p5"}
    items = [batches._item(number) for number in range(36)]
    assert sorted(items) == list(range(36))
    for step, item in enumerate(items[:12]):
        case, start = batches.items[item]
        scan, _, name = case.split()
        alone = replace(DATA, any_source=(), source=[scan])
        expected = read_pair(cohort.case(name), alone, MAPS, (start, 0, 0))
        assert torch.equal(batches[step].source, expected.source)
        assert torch.equal(batches[step].target, expected.target)
        assert torch.equal(batches[step].mask, expected.mask)


def test_validation_shows_every_scan_of_a_case(cohort):
    seen = with_any_source(cohort, DATA.any_source, "mr")
    [batch] = validation_batches(seen, DATA, MAPS, batch=12)
    t1, flair = batch.source[:6], batch.source[6:]
    assert torch.equal(batch.target[:6], batch.target[6:])
    assert not torch.equal(t1, flair)


@pytest.mark.slow
def test_a_case_whose_source_is_drawn_from_maps_is_one_case_beside_the_scans(tmp_path, small_head):
    cases = write_cases(tmp_path / "cases", small_head)
    (cases / "cases.csv").unlink()
    write_cohort(tmp_path / "heads", cases=2, size=(24, 32, 8), modalities=["maps", "t2"])
    for head in sorted((tmp_path / "heads").glob("phantom_*")):
        shutil.copytree(head, cases / head.name)
    prepare(cases, tmp_path / "prepared", workers=0, audit=False, shares=(8, 0, 0))
    physics = PhysicsSettings(contrasts={"mr": Contrast(sequence="spin_echo")})
    drawn = open_cohort(tmp_path / "prepared").with_physics(physics, ["t2"])
    seen = with_any_source(drawn, DATA.any_source, "mr")
    heads = [case for case in seen.splits["train"] if case.startswith("phantom")]
    assert len(heads) == 2
    batches = Batches(seen, replace(DATA, physics=physics), MAPS, steps=1)
    names = {case for case, _ in batches.items}
    assert {*heads, "t1 of p0", "flair of p0"} <= names
    place = (3, 0, 0)
    pairs = [read_pair(seen.case(heads[0]), batches.data, MAPS, place, seed=s) for s in (1, 2)]
    assert not torch.equal(pairs[0].source, pairs[1].source)  # two draws
    assert torch.equal(pairs[0].target, pairs[1].target)


@every_row(
    "options, expected",
    [
        (("t1", "flair", "pd", "--target", "t2"), "found 'pd'."),
        (("t1", "flair"), "Add --target NAME."),
        (("t1", "t2", "--target", "t2"), "other than those of data.source and data.target"),
        (("t1", "ct", "--target", "t2"), "one arbitrary unit, any of which is the source, found t1 in a.u., ct in HU"),
        (("t1", "flair", "--target", "t2", "--source", "ct"), "found both (ct). Drop one."),
    ],
)  # fmt: skip
def test_wrong_sources_are_refused_in_one_sentence(voxlate, folders, tmp_path, options, expected):
    names = [word for word in options if word in ("t1", "flair", "pd", "ct") or word == "t2"]
    scans = names[: 3 if "pd" in names else 2]
    given = ["--any-source", ",".join(scans)]
    others = options[len(scans) :]
    arguments = [*given, *others, *PLAN, "--out", tmp_path / "run"]
    refusal = voxlate("train", "auto", "--data", folders / "prepared", *arguments).refusal
    assert expected in refusal
    assert not (tmp_path / "run").exists()


@every_row(
    "changes, expected",
    [
        ({"source": ["t1", "flair"]}, "expected one source"),
        ({"any_source": ("t1", "t1")}, "expected each modality once"),
        ({"any_source": ("t1", "mr")}, "names other than"),
        ({"apart": True}, "expected pairs"),
    ],
)
def test_settings_that_do_not_fit_any_source_are_refused(changes, expected):
    with pytest.raises(BadInput, match=expected):
        replace(DATA, **changes)


def test_a_recipe_for_scans_that_a_cohort_lacks_is_refused(cohort):
    with pytest.raises(BadInput, match=r"expected scans of pd or swi or mr \(data.any_source\)"):
        with_any_source(cohort, ("pd", "swi"), "mr")


@pytest.mark.slow
def test_a_planned_model_takes_whichever_scan_is_given(voxlate, folders, tmp_path):
    prepared, run = folders / "prepared", tmp_path / "run"
    options = ("--any-source", "t1", "--any-source", "flair", "--target", "t2")
    command = ("train", "auto", "--data", prepared, *options, *PLAN, "--out", run)
    answer = voxlate(*command).done()
    said = answer.said
    assert "p5 has none of them and is left out" in said
    assert "--split val --out OUT" in answer.out
    assert splits_of_training([run]) == open_cohort(prepared).splits

    scan = folders / "cases" / "p4"
    images = {}
    for name in ("t1", "flair"):
        out = tmp_path / name
        voxlate("synth", run, f"{name}={scan / name}.nii.gz", "--out", out).done()
        [image] = out.glob("*/t2.nii.gz")
        images[name] = nib.load(image).get_fdata()
    assert not np.array_equal(images["t1"], images["flair"])
    as_mr = package.load(run).synthesise({"mr": scan / "flair.nii.gz"})
    by_name = package.load(run).synthesise({"flair": scan / "flair.nii.gz"})
    assert np.array_equal(as_mr.volumes["t2"].data, by_name.volumes["t2"].data)

    answer = voxlate("synth", run, folders / "cases", "--split", "val", "--out", tmp_path / "val")
    assert "t1 is taken as mr; flair could be taken, too, by mr=FILE." in answer.done().err
    assert (
        "found 'ct'"
        in voxlate("synth", run, f"ct={scan}/t1.nii.gz", "--out", tmp_path / "ct").refusal
    )
    scored = voxlate("evaluate", tmp_path / "val", "--truth", folders / "cases").done()
    assert "t2" in scored.out

    lone = tmp_path / "lone"
    shutil.copytree(folders / "cases" / "p5", lone)
    refusal = voxlate("synth", run, lone, "--out", tmp_path / "none").refusal
    assert "expected t1 or flair, found none of them. Add t1 or flair" in refusal
    adapted = voxlate("adapt", run, "--data", prepared, "--out", tmp_path / "adapted", "--steps", 2)
    assert "is the model" in adapted.done().out

    voxlate(*command).done()
    other = ("--any-source", "t1", *command[-2:])
    refusal = voxlate("train", "auto", "--data", prepared, *other).refusal
    assert (
        "expected a run with the any-source t1, found one that was planned with t1, flair"
        in refusal
    )
