"""Masks come from the scans that a model is given, at preparation and at synthesis alike; a user's own mask wins."""

import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from preparing import prepare
from refusals import refuses
from rows import every_row, slow
from trainings import recipe_of_text
from voxlate.anatomy.phantom_cohort import write_cohort
from voxlate.anatomy.tissue import INTRACRANIAL
from voxlate.base.files import read_json
from voxlate.base.similarity import dice
from voxlate.scans.formats.io import content_hash, read_volume
from voxlate.scans.images.mask import brain, clearest
from voxlate.training.load import load
from voxlate.training.train import train

SIZE = (48, 52, 32)
NET = 'net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }'
SHORT = f"""
method = {{ kind = "regression" }}
{NET}
train = {{ steps = 2, batch = 2, precision = "float32", workers = 0 }}
"""
RECIPE = f"""
title = "flow inside the brain"
data = {{ source = ["ncct", "cta1"], target = ["tmax"], patch = [1, 52, 48] }}
task = {{ kind = "translate", strip = true, inside = true }}
{SHORT}
[intensity]
ncct = {{ kind = "window", low = 0, high = 80 }}
cta1 = {{ kind = "window", low = 0, high = 200 }}
tmax = {{ kind = "window", low = 0, high = 30 }}
"""
COMPLETE = f"""
title = "either of two contrasts"
data = {{ source = ["ncct", "cta1"], target = ["ncct", "cta1"], patch = [1, 80, 64] }}
task = {{ kind = "complete", strip = true }}
{SHORT}
intensity = {{ ncct = {{ kind = "window", low = 0, high = 80 }}, cta1 = {{ kind = "window", low = 0, high = 200 }} }}
"""


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    out = tmp_path_factory.mktemp("heads") / "cohort"
    options = {"lesion": "stroke", "seed": 4, "modalities": ["ncct", "cta1", "tmax"]}
    write_cohort(out, cases=3, size=SIZE, **options)
    return out


@pytest.fixture(scope="module")
def ready(heads, tmp_path_factory):
    out = tmp_path_factory.mktemp("ready") / "out"
    return prepare(heads, out, mask="brain", workers=1, audit=False, shares=(0.6, 0.4, 0))


@pytest.fixture(scope="module")
def run(ready, tmp_path_factory):
    out = tmp_path_factory.mktemp("model") / "run"
    return train(recipe_of_text(RECIPE), ready.folder, out, device="cpu").folder


def scans(heads):
    """The inputs of a case that was not in the training."""
    return {name: heads / f"phantom_001/{name}.nii.gz" for name in ("ncct", "cta1")}


@pytest.fixture
def volumes(heads):
    return {name: read_volume(path, name) for name, path in scans(heads).items()}


def save_like(path, values, like):
    nib.save(nib.Nifti1Image(values, nib.load(like).affine), path)
    return path


def test_the_prepared_brain_is_the_brain_of_the_plain_ct(heads, ready):
    assert ready.provenance["mask_from"] == "ncct"
    for name in (one.case for one in ready.cases):
        seg = read_volume(heads / name / "seg.nii.gz", "seg").data[0]
        case = ready.case(name)
        assert ready.header(name).mask_from == "brain of ncct"
        assert np.array_equal(case.mask(), brain(case.volume("ncct")))
        assert dice(case.mask(), np.isin(seg, INTRACRANIAL)) > 0.94


@every_row(
    "units, name",
    [
        ({"cbf": "ml/100g/min", "cta1": "HU", "ncct": "HU"}, "ncct"),
        ({"cta2": "HU", "cta1": "HU", "tmax": "s"}, "cta2"),
        ({"t1": "a.u.", "ct": "HU"}, "ct"),
        ({"t2": "a.u.", "pd": "a.u."}, "t2"),
    ],
)
def test_a_brain_is_looked_for_in_plain_ct_first(units, name):
    assert clearest(units) == name


def test_a_mask_from_a_scan_that_the_model_is_not_given_is_refused(heads, out, tmp_path):
    prepare(heads, out, mask="brain", mask_from="ncct", workers=1)
    recipe = recipe_of_text(RECIPE.replace('["ncct", "cta1"]', '["cta1"]'))
    sentence = r"found the brain of ncct\. Prepare it with --mask-from cta1"
    with refuses(sentence):
        train(recipe, out, tmp_path / "run", device="cpu")
    with refuses("expected cta9"):
        prepare(heads, tmp_path / "other", mask="brain", mask_from="cta9", workers=1)


def test_nothing_is_synthesised_outside_the_brain_of_the_input(volumes, run):
    made = load(run).synthesise(volumes).volume.data[0]
    inside = brain(volumes["ncct"])
    assert (made[~inside] == 0).all()
    assert (made[inside] != 0).mean() > 0.9


def test_a_given_mask_wins_at_synthesis_and_is_recorded(voxlate, heads, run, tmp_path):
    case, out = tmp_path / "in/a", tmp_path / "out"
    case.mkdir(parents=True)
    pairs = [f"{name}={shutil.copy(path, case)}" for name, path in scans(heads).items()]
    half = np.zeros(SIZE, np.uint8)
    half[:24] = np.arange(1, 25)[:, None, None]  # as a scan
    mask = save_like(case / "brainmask.nii.gz", half, scans(heads)["ncct"])
    voxlate("synth", run, *pairs, f"mask={mask}", "--out", out).done()
    made = nib.load(out / "a/tmax.nii.gz").get_fdata()
    assert not made[24:].any()
    assert (made[:24] != 0).mean() > 0.9
    said = read_json(out / "a/provenance.json")
    assert said["inputs"]["mask"]["sha256"] == content_hash(mask)
    assert "grey-mask" in f"{said}"


@every_row(
    "shape, value, sentence",
    [
        ((48, 52, 19), 1, "mask.nii.gz: expected the grid of"),
        (SIZE, 0, "expected a mask with voxels above 0"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_in_one_sentence(
    heads, run, tmp_path, shape, value, sentence
):
    values = np.full(shape, value, np.uint8)
    path = save_like(tmp_path / "mask.nii.gz", values, scans(heads)["ncct"])
    with refuses(sentence):
        load(run).synthesise({**scans(heads), "mask": path})


def test_no_brain_and_a_missing_phase_are_one_sentence_each(volumes, run):
    with refuses(r"case: expected ncct and cta1, found ncct\. Add cta1"):
        load(run).synthesise({"ncct": volumes["ncct"]})
    ct = volumes["ncct"].data
    ct[:] = np.where(ct > -300, 30, -1000)  # a body without bone
    with refuses("expected a head, found no brain"):
        load(run).synthesise(volumes)


@slow
def test_where_the_scan_of_the_brain_is_missing_it_is_found_in_another_and_said(
    synth, tmp_path, out
):
    """A phantom without the plain CT in which its brain was found in training: the CTA shows it as well."""
    heads = tmp_path / "heads"
    write_cohort(heads, cases=2, size=(64, 80, 16), modalities=["ncct", "cta1"])
    how = {"mask": "brain", "mask_from": "ncct", "shares": (1, 1, 0), "audit": False}
    ready = prepare(heads, tmp_path / "ready", **how).folder
    run = train(recipe_of_text(COMPLETE), ready, tmp_path / "run", device="cpu").folder
    assert "found in cta1, not in ncct" in synth(run, heads, "--missing", "ncct").done().err
    stated = read_json(next(out.glob("*/provenance.json")))
    assert stated["prepared"]["mask_from"] == "cta1"


@slow
def test_a_cut_head_is_refused_though_alignment_puts_air_around_it(heads, run, out, tmp_path):
    model = load(run)
    aligned = replace(model.facts.preparation, align="midline")
    model = replace(model, facts=replace(model.facts, preparation=aligned))
    (tmp_path / "in/a").mkdir(parents=True)
    cut = {name: tmp_path / f"in/a/{name}.nii.gz" for name in ("ncct", "cta1")}
    for name, path in scans(heads).items():
        nib.save(nib.load(path).slicer[13:], cut[name])
    sentence = "expected a whole head in each slice"
    with refuses(sentence):
        prepare(tmp_path / "in", out, mask="brain", align="midline", workers=1)
    with refuses(sentence):
        model.synthesise(cut)
    # Who gives a mask knows better.
    whole = np.ones(nib.load(cut["ncct"]).shape, np.uint8)
    mask = save_like(tmp_path / "part.nii.gz", whole, cut["ncct"])
    assert model.synthesise({**cut, "mask": mask}).volume.data.any()
