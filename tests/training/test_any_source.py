"""A model that takes any one of several contrasts: each scan of a case is the source of an item of its own."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import voxlate as package
from preparing import prepare
from refusals import refuses
from rows import every_row, slow
from scans import change_scan
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.images.intensity import Percentile
from voxlate.training.batches.batches import Batches, validation_batches
from voxlate.training.batches.data_settings import DataSettings, with_any_source
from voxlate.training.batches.patches import read_pair
from voxlate.training.recipe.run_provenance import splits_of_training

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


def write_cases(folder, small_head):
    """Cases by SCANS; flair is t1 squared, with another scale."""
    for number, (case, names) in enumerate(SCANS.items()):
        small_head(folder / case, number, modalities=("t1", "t2", *({"ct"} & {*names})))
        t1 = folder / case / "t1.nii.gz"
        if "flair" in names:
            change_scan(t1, lambda values: values**2 / 50, t1.with_name("flair.nii.gz"))
        if "t1" not in names:
            t1.unlink()
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


@pytest.fixture
def seen(cohort):
    """The cohort as a training sees it."""
    return with_any_source(cohort, DATA.any_source, "mr")


def test_each_scan_of_a_case_is_the_source_of_a_case_of_its_own(cohort, seen):
    train = ["t1 of p0", "flair of p0", "t1 of p1", "flair of p2", "t1 of p3", "flair of p3", "p5"]
    assert seen.splits == {"train": train, "val": ["t1 of p4", "flair of p4"], "test": []}
    assert seen.on_disk(train) == cohort.splits["train"]
    assert seen.digest == cohort.digest
    stored, shown = cohort.case("p3"), seen.case("flair of p3")
    assert shown.header.statistics["mr"] == stored.header.statistics["flair"]
    assert np.array_equal(shown.arrays["mr"], stored.arrays["flair"])
    assert np.array_equal(shown.mask(["mr"]), stored.mask(["flair"]))
    assert np.array_equal(shown.mask(["t2"]), stored.mask(["t2"]))
    [batch] = validation_batches(seen, DATA, MAPS, batch=12)
    assert torch.equal(batch.target[:6], batch.target[6:])
    assert not torch.equal(batch.source[:6], batch.source[6:])


def test_an_epoch_shows_each_slice_once_with_each_scan_on_that_scan_s_own_scale(cohort, seen):
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
        for key in ("source", "target", "mask"):
            assert torch.equal(getattr(batches[step], key), getattr(expected, key))


@every_row(
    "scans, options, expected",
    [
        ("t1,flair,pd", "--target t2", "found 'pd'."),
        ("t1,flair", "", "Add --target NAME."),
        ("t1,t2", "--target t2", "other than those of data.source and data.target"),
        ("t1,ct", "--target t2", "one arbitrary unit, any of which is the source, found t1 in a.u., ct in HU"),
        ("t1,flair", "--target t2 --source ct", "found both (ct). Drop one."),
    ],
)  # fmt: skip
def test_wrong_sources_are_refused_in_one_sentence(
    voxlate, folders, tmp_path, scans, options, expected
):
    run = tmp_path / "run"
    given = ("--any-source", scans, *options.split(), *PLAN, "--out", run)
    assert expected in voxlate("train", "auto", "--data", folders / "prepared", *given).refusal
    assert not run.exists()


@every_row(
    "changes, expected",
    [
        ({"source": ["t1", "flair"]}, "one source"),
        ({"any_source": ("t1", "t1")}, "expected each modality once"),
        ({"any_source": ("t1", "mr")}, "names other than"),
        ({"apart": True}, "expected pairs"),
    ],
)
def test_settings_that_do_not_fit_any_source_are_refused(changes, expected):
    with refuses(expected):
        replace(DATA, **changes)


def test_a_recipe_for_scans_that_a_cohort_lacks_is_refused(cohort):
    with refuses(r"expected scans of pd or swi or mr \(data.any_source\)"):
        with_any_source(cohort, ("pd", "swi"), "mr")


@slow
def test_a_planned_model_takes_whichever_scan_is_given(voxlate, folders, tmp_path):
    cases, run = folders / "cases", tmp_path / "run"
    start = ("train", "auto", "--data", folders / "prepared", "--out", run)
    command = (*start, "--any-source", "t1,flair", "--target", "t2", *PLAN)
    answer = voxlate(*command).done()
    assert "p5 has none of them and is left out" in answer.said
    assert "--split val --out OUT" in answer.out
    assert splits_of_training([run]) == open_cohort(folders / "prepared").splits

    def image(name, file):
        return package.load(run).synthesise({name: cases / f"p4/{file}.nii.gz"}).volume.data

    flair = image("flair", "flair")
    assert not np.array_equal(image("t1", "t1"), flair)
    assert np.array_equal(image("mr", "flair"), flair)

    answer = voxlate("synth", run, cases, "--out", tmp_path / "val", "--split", "val").done()
    assert "t1 is taken as mr; flair could be taken, too, by mr=FILE." in answer.err
    assert "t2" in voxlate("evaluate", tmp_path / "val", "--truth", cases).done().out
    for given in (f"ct={cases}/p4/t1.nii.gz", shutil.copytree(cases / "p5", tmp_path / "lone")):
        assert voxlate("synth", run, given, "--out", tmp_path / "none").refusal
    adapted = ("adapt", run, "--data", folders / "prepared", "--out", tmp_path / "adapted")
    assert "is the model" in voxlate(*adapted, "--steps", 2).done().out
    voxlate(*command).done()
    assert "any-source" in voxlate(*start, "--any-source", "t1").refusal
