"""Masks come from the scans that a model is given, at preparation and at synthesis alike; a user's own mask wins."""

import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rows import every_row
from voxlate.anatomy.cohort import write_cohort
from voxlate.anatomy.tissue import INTRACRANIAL
from voxlate.base.errors import BadInput
from voxlate.base.files import read_json
from voxlate.base.similarity import dice
from voxlate.checks.prepare import prepare
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.formats.io import content_hash, read_volume
from voxlate.scans.images.mask import brain, clearest
from voxlate.training import recipe as recipes
from voxlate.training.model import load
from voxlate.training.train import train

SIZE = (48, 52, 32)
RECIPE = """
title = "flow inside the brain"
data = { source = ["ncct", "cta1"], target = ["tmax"], patch = [1, 52, 48] }
task = { kind = "translate", strip = true, inside = true }
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 2, batch = 2, precision = "float32", workers = 0 }
[intensity]
ncct = { kind = "window", low = 0, high = 80 }
cta1 = { kind = "window", low = 0, high = 200 }
tmax = { kind = "window", low = 0, high = 30 }
"""
COMPLETE = """
title = "either of two contrasts"
data = { source = ["t1", "t1c"], target = ["t1", "t1c"], patch = [1, 80, 64] }
task = { kind = "complete", strip = true }
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 2, batch = 2, precision = "float32", workers = 0 }
intensity = { t1 = { kind = "percentile", floor = 0 }, t1c = { kind = "percentile", floor = 0 } }
"""


@pytest.fixture(scope="module")
def heads(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("heads") / "cohort"
    write_cohort(
        out, cases=3, size=SIZE, lesion="stroke", seed=4, modalities=["ncct", "cta1", "tmax"]
    )
    return out


@pytest.fixture(scope="module")
def ready(heads, tmp_path_factory) -> Path:
    prepare(
        heads,
        tmp_path_factory.mktemp("ready") / "out",
        mask="brain",
        workers=1,
        audit=False,
        shares=(0.6, 0.4, 0),
    )
    return tmp_path_factory.getbasetemp() / "ready0" / "out"


@pytest.fixture(scope="module")
def run(ready, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "recipe.toml").write_text(RECIPE)
    train(recipes.read(str(folder / "recipe.toml")), ready, folder / "run", device="cpu")
    return folder / "run"


def scans(heads: Path, case: str = "phantom_001") -> dict[str, Path]:
    return {name: heads / case / f"{name}.nii.gz" for name in ("ncct", "cta1")}


def save_like(path: Path, values: np.ndarray, like: Path) -> Path:
    nib.save(nib.Nifti1Image(values, nib.load(like).affine), path)
    return path


def test_the_prepared_brain_is_the_brain_of_the_plain_ct(heads, ready):
    cohort = open_cohort(ready)
    assert cohort.provenance["mask_from"] == "ncct"
    for one in cohort.cases:
        seg = read_volume(heads / one.case / "seg.nii.gz", "seg").data[0]
        inside = np.isin(seg, INTRACRANIAL)
        mask = cohort.case(one.case).mask()
        assert cohort.header(one.case).mask_from == "brain of ncct"
        assert np.array_equal(mask, brain(cohort.case(one.case).volume("ncct")))
        assert dice(mask, inside) > 0.94


@every_row(
    "units, name",
    [
        ({"cbf": "ml/100g/min", "cta1": "HU", "ncct": "HU"}, "ncct"),
        ({"cta2": "HU", "cta1": "HU", "tmax": "s"}, "cta2"),
        ({"t1": "a.u.", "ct": "HU"}, "ct"),
        ({"flair": "a.u.", "t1": "a.u."}, "t1"),
        ({"t2": "a.u.", "pd": "a.u."}, "t2"),
    ],
)
def test_a_brain_is_looked_for_in_plain_ct_first(units, name):
    assert clearest(units) == name


def test_a_mask_from_a_scan_that_the_model_is_not_given_is_refused(heads, out, tmp_path):
    prepare(heads, out, mask="brain", mask_from="ncct", workers=1)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    recipe = recipes.read(str(tmp_path / "recipe.toml"), {"data.source": '["cta1"]'})
    sentence = r"found the brain of ncct\. Prepare it with --mask-from cta1"
    with pytest.raises(BadInput, match=sentence):
        train(recipe, out, tmp_path / "run", device="cpu")


def test_a_case_without_the_scan_that_shows_the_brain_is_named(heads, out):
    with pytest.raises(BadInput, match="expected cta9"):
        prepare(heads, out, mask="brain", mask_from="cta9", workers=1)


def test_nothing_is_synthesised_outside_the_brain_of_the_input(heads, run):
    made = load(run).synthesise(scans(heads))
    inside = brain(read_volume(scans(heads)["ncct"], "ncct"))
    assert (made.volume.data[0][~inside] == 0).all()
    assert (made.volume.data[0][inside] != 0).mean() > 0.9


@pytest.mark.slow
def test_what_lies_outside_the_mask_changes_nothing(heads, run):
    volumes = {name: read_volume(path, name) for name, path in scans(heads).items()}
    inside = brain(volumes["ncct"])
    mask = volumes["ncct"].__class__(
        inside[None].astype(np.float32), volumes["ncct"].affine, "", "mask"
    )
    plain = load(run).synthesise({**volumes, "mask": mask}).volume.data
    for volume in volumes.values():
        volume.data[0][~inside] += 50
    assert np.array_equal(load(run).synthesise({**volumes, "mask": mask}).volume.data, plain)


@every_row("way", ["named", "in a cohort"])
def test_a_given_mask_wins_at_synthesis_and_is_recorded(voxlate, heads, run, tmp_path, way):
    case, out = tmp_path / "in" / "a", tmp_path / "out"
    case.mkdir(parents=True)
    for name, path in scans(heads).items():
        shutil.copy(path, case / f"{name}.nii.gz")
    half = np.zeros(SIZE, np.uint8)
    half[:24] = np.arange(1, 25)[:, None, None]  # as a scan
    mask = save_like(case / "brainmask.nii.gz", half, scans(heads)["ncct"])
    pairs = [f"{name}={case / name}.nii.gz" for name in ("ncct", "cta1")]
    given = [*pairs, f"mask={mask}"] if way == "named" else [case.parent]
    voxlate("synth", run, *given, "--out", out).done()
    made = nib.load(out / "a" / "tmax.nii.gz").get_fdata()
    assert not made[24:].any()
    assert (made[:24] != 0).mean() > 0.9
    said = read_json(out / "a" / "provenance.json")
    assert said["inputs"]["mask"]["sha256"] == content_hash(mask)
    assert "grey-mask" in f"{said}"


@pytest.mark.parametrize(
    ("shape", "value", "sentence"),
    [
        ((48, 52, 19), 1, "mask.nii.gz: expected the grid of"),
        (SIZE, 0, "expected a mask with voxels above 0"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_in_one_sentence(
    heads, run, tmp_path, shape, value, sentence
):
    path = save_like(
        tmp_path / "mask.nii.gz", np.full(shape, value, np.uint8), scans(heads)["ncct"]
    )
    with pytest.raises(BadInput, match=sentence):
        load(run).synthesise({**scans(heads), "mask": path})


def test_no_brain_and_a_missing_phase_are_one_sentence_each(heads, run):
    volumes = {name: read_volume(path, name) for name, path in scans(heads).items()}
    with pytest.raises(BadInput, match=r"case: expected ncct and cta1, found ncct\. Add cta1"):
        load(run).synthesise({"ncct": volumes["ncct"]})
    volumes["ncct"].data[:] = np.where(
        volumes["ncct"].data > -300, 30, -1000
    )  # a body without bone
    with pytest.raises(BadInput, match="expected a head, found no brain"):
        load(run).synthesise(volumes)


@pytest.mark.slow
def test_a_cut_head_is_refused_though_alignment_puts_air_around_it(heads, run, out, tmp_path):
    model = load(run)
    aligned = replace(model.facts.preparation, align="midline")
    model = replace(model, facts=replace(model.facts, preparation=aligned))
    folder = tmp_path / "in" / "a"
    folder.mkdir(parents=True)
    cut = {name: folder / f"{name}.nii.gz" for name in ("ncct", "cta1")}
    for name, path in scans(heads).items():
        nib.save(nib.load(path).slicer[13:], cut[name])
    sentence = "expected a whole head in each slice"
    with pytest.raises(BadInput, match=sentence):
        prepare(tmp_path / "in", out, mask="brain", align="midline", workers=1)
    with pytest.raises(BadInput, match=sentence):
        model.synthesise(cut)
    # Who gives a mask knows better.
    whole = np.ones(nib.load(cut["ncct"]).shape, np.uint8)
    mask = save_like(tmp_path / "part.nii.gz", whole, cut["ncct"])
    assert model.synthesise({**cut, "mask": mask}).volume.data.any()


@pytest.mark.slow
def test_a_map_is_scored_inside_the_brain_of_the_case_s_ct(heads, run, tmp_path):
    made = load(run).synthesise(scans(heads))
    out = tmp_path / "out" / "phantom_001"
    out.mkdir(parents=True)
    nib.save(
        nib.Nifti1Image(made.volume.data[0].transpose(2, 1, 0), made.volume.affine),
        out / "tmax.nii.gz",
    )
    truth = read_volume(heads / "phantom_001" / "tmax.nii.gz", "tmax").data[0]
    inside = brain(read_volume(scans(heads)["ncct"], "ncct"))
    scores = evaluate(tmp_path / "out", heads, mask="brain")
    row = next(row for row in scores.rows if row.method == "synthesis")
    assert row.scores["mae"] == pytest.approx(
        np.abs(made.volume.data[0] - truth)[inside].mean(), rel=1e-4
    )


@pytest.mark.slow
def test_where_the_scan_of_the_brain_is_missing_it_is_found_in_another_and_said(tmp_path, voxlate):
    """A phantom without the T1 in which its brain was found in training: the T1c shows it as well."""
    heads, out = tmp_path / "heads", tmp_path / "out"
    shape = ("--size", "64", "80", "16", "--modality", "t1", "--modality", "t1c", "--cases", "2")
    voxlate("phantom", "--out", heads, *shape).done()
    how = ("--mask", "brain", "--mask-from", "t1", "--shares", 1, 1, 0, "--no-audit")
    voxlate("prepare", heads, "--out", tmp_path / "ready", *how).done()
    (tmp_path / "complete.toml").write_text(COMPLETE)
    command = ("train", tmp_path / "complete.toml", "--data", tmp_path / "ready")
    voxlate(*command, "--out", tmp_path / "run").done()
    answer = voxlate("synth", tmp_path / "run", heads, "--missing", "t1", "--out", out).done()
    assert "found in t1c, not in t1" in answer.err
    stated = read_json(next(out.glob("*/provenance.json")))
    assert stated["prepared"]["mask_from"] == "t1c"
