"""The table of starters as they come: real scans of which no training saw a pair."""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

import voxlate
from ingredients import layout
from starter_measures import (
    ALIGNED,
    HEAD_CT,
    SCORES,
    SYNTHESIS,
    Job,
    Setup,
    cases_of,
    images_of,
    means,
)
from voxlate.cases import naive
from voxlate.cohorts.find import CaseFiles
from voxlate.formats.io import read_volume
from voxlate.images.grid import canonical
from voxlate.images.mask import foreground
from voxlate.images.ranges import range_for
from voxlate.images.similarity import dice
from voxlate.scoring.aligned import moved_onto
from voxlate.scoring.evaluate import evaluate
from voxlate.scoring.scored_images import images_in
from voxlate.scoring.windowed_pictures import picture_units, window_of
from voxlate.synthesis.model import load

BRAIN_MR, TOF_CTA = "brain-mr-to-mr", "head-tof-to-cta"
# Bone fills the top of a brain window; interpolation by the alignment softens its edges a little below.
BONE = 0.9
# Patients with all contrasts, each of which is the test of baselines that the others teach.
CONTRASTS = ("t1", "t2", "flair")
VESSELS = {"vessels": "cta>150", "arteries": "150<cta<600"}  # arteries: without bone


def zero(setup: Setup) -> Iterator[Job]:
    """Each starter on a real cohort."""
    if setup.has(HEAD_CT, "harvard"):
        yield Job(setup.key("zero", HEAD_CT, row="harvard"), partial(_slices, setup))
    if setup.has(BRAIN_MR, "brains"):
        yield Job(setup.key("zero", BRAIN_MR, row="brains"), partial(_brains, setup))
    if setup.has(TOF_CTA, "topcow"):
        yield Job(setup.key("zero", TOF_CTA, row="topcow"), partial(_vessels, setup))


def _slices(setup: Setup) -> dict[str, Any]:
    """CT of all slices of Harvard in the window of the brain, and bone's Dice after local alignment."""
    scans = setup.work / "harvard_scans"
    cases = {case.case: case for case in cases_of(setup, "harvard")}
    out = setup.folder("images", "zero_harvard")
    images_of(load(setup.starters / HEAD_CT, "cpu"), scans, cases.keys(), out)
    table = evaluate(out, scans, cases=cases.keys(), align=True, **layout(scans))
    own = {row.case: row.scores for row in table.rows if row.answer == SYNTHESIS}
    overlaps = [_bone_dice(cases[name], out / name) for name in own]
    found = [one for one in overlaps if math.isfinite(one)]
    heads = {cases[name].patient for name in own}
    by_head = {
        f"head {number + 1}": round(
            mean(row["mae_rel"] for name, row in own.items() if cases[name].patient == head), 4
        )
        for number, head in enumerate(sorted(heads))
    }
    return {
        **means(table, {**SCORES, **ALIGNED}),
        "bone_dice": round(mean(found), 4),
        "heads": by_head,
    }


def _bone_dice(case: CaseFiles, folder: Path) -> float:
    """Dice of bone in the pictures' window, after the synthesised CT was moved onto the truth."""
    truth = canonical(read_volume(case.files["ct"], "ct"))
    made = canonical(read_volume(images_in(folder)["ct"], "ct"))
    scale = range_for(truth.unit, float(truth.data.max()))
    grey = picture_units(window_of(None), scale).synthesis(made).data[0]
    body = foreground(truth)
    moved = moved_onto(truth.data[0], grey, body, truth.grid.spacing_mm, truth.unit)
    least = scale.low + BONE * scale.width
    return dice(truth.data[0] > least, np.asarray(moved.values) > least)


def _brains(setup: Setup) -> dict[str, Any]:
    """T2 and FLAIR of T1 alone of each patient, in the body, beside baselines that the other patients taught."""
    scans = setup.work / "brains_scans"
    cases = [case for case in cases_of(setup, "brains") if set(CONTRASTS) <= case.files.keys()]
    chosen = [case.case for case in cases]
    source, *targets = CONTRASTS
    model = load(setup.starters / BRAIN_MR, "cpu")
    others = [name for name in model.recipe.data.source if name != source]
    out = setup.folder("images", "zero_brains")
    images_of(model, scans, chosen, out, missing=others)
    prepared = setup.folder("prepared", "brains")
    teaching = voxlate.prepare(
        scans, prepared, modalities=CONTRASTS, shares=(1, 0, 0), audit=False, progress=False
    )
    patients: dict[str, Any] = {}
    for number, case in enumerate(chosen):
        left_out = teaching.with_splits({one: "test" if one == case else "train" for one in chosen})
        learned = naive.fit_cohort(left_out, [source], targets)
        table = evaluate(out, scans, cases=[case], mask="body", naive=learned, **layout(scans))
        patients[f"patient {number + 1}"] = _by_target(table.rows, targets)
    return {"patients": patients}


def _by_target(rows: Any, targets: list[str]) -> dict[str, dict[str, Mapping[str, float]]]:
    """The scores of each answer, by target."""
    keys = {**SCORES, "mae": "mae"}
    return {
        target: {
            row.answer: {
                name: round(row.scores[key], 4) for name, key in keys.items() if key in row.scores
            }
            for row in rows
            if row.modality == target
        }
        for target in targets
    }


def _vessels(setup: Setup) -> dict[str, Any]:
    """CTA of TOF inside the mask of the cohort: HU, and the overlap of what is brighter than 150 HU."""
    scans = setup.work / "topcow_scans"
    cases = [case.case for case in cases_of(setup, "topcow")]
    out = setup.folder("images", "zero_topcow")
    images_of(load(setup.starters / TOF_CTA, "cpu"), scans, cases, out)
    table = evaluate(
        out, scans, cases=cases, mask="cohort", regions=VESSELS, align=True, **layout(scans)
    )
    overlaps = {f"{name}_dice": f"{name}.dice" for name in VESSELS}
    return means(table, {**SCORES, **ALIGNED, "hu": "mae", **overlaps})
