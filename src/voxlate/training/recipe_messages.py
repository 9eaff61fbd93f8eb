"""Whether a recipe fits a cohort: what is said before the first step, and scales that are refused."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from voxlate.base.errors import first_of
from voxlate.base.groups import grouped
from voxlate.base.messages import Message, message
from voxlate.scans.cases.case import LABEL, PreparedCase
from voxlate.scans.cases.prepared import SPLITS, Cohort
from voxlate.scans.cohorts.split import FOLDS
from voxlate.synthesis.scan_checks import (
    check_filled,
    check_floor,
    check_one_scale,
    check_scales,
)
from voxlate.training.batches.data_settings import (
    DataSettings,
    missing_modalities,
    training_cases,
)
from voxlate.training.batches.latents import uncacheable
from voxlate.training.batches.patches import NO_LABEL, note_on_cut, note_on_padding
from voxlate.training.planning.cohort_facts import GREY_LEVELS, scan_of
from voxlate.training.planning.rules import intensity
from voxlate.training.recipe import FullStage, Recipe
from voxlate.training.validate import validation_split


def check_training(recipe: Recipe, cohort: Cohort) -> list[Message]:
    """Messages on unusual data of the stages and on their validation; the name of a stage where others do not have it."""
    stages_of = grouped(
        (one, stage.name) for stage in recipe.all_stages for one in _of_stage(stage, recipe, cohort)
    )
    every = len(recipe.all_stages)
    messages = []
    for one, stages in stages_of.items():
        of_stages = "" if len(stages) == every else f"stage {', '.join(stages)}: "
        messages.append(replace(one, text=f"{of_stages}{one.text}"))
    return messages


def fold_note(cohort: Cohort, fold: int) -> Message:
    """A message on the held-out cases of a fold."""
    train, val, test = (cohort.splits[name] for name in SPLITS)
    count = len({case.fold for case in cohort.cases} - {None}) or FOLDS
    text = f"fold {fold} of {count}: {len(train)} cases train, {len(val)} validate ({first_of(val)}); the test split ({len(test)}) is not used."
    return message("fold", text, train=len(train), val=len(val))


def _of_stage(stage: FullStage, recipe: Recipe, cohort: Cohort) -> Iterator[Message]:
    data = stage.data
    lacking = missing_modalities(cohort, data, "train")
    if data.apart:
        yield message("without-pairs", _sides(stage, cohort))
    elif lacking:
        cases = ", ".join(f"{case} (no {', no '.join(names)})" for case, names in lacking.items())
        yield message("not-trained-on", f"left out of training: {cases}.", cases=len(lacking))
    if validation_split(cohort) == "train":
        text = "no validation cases: training items are used instead, and named so in the log."
        yield message("no-validation", text)
    teaching = training_cases(cohort, data)
    for name in data.target:
        yield from check_scales(name, cohort.target_widths(recipe.intensity[name], name, teaching))
    for name in data.modalities:
        yield from _of_window(name, stage, recipe, cohort, teaching)
    reason = uncacheable(cohort, data) if stage.task.encodes else ""
    if reason:
        text = f"latents are encoded again at every step, because there is {reason}."
        yield message("latents", text)
    for text in _notes_on_patches(data, cohort):
        yield message("patch-size", text)
    if text := _weights_note(stage, cohort, teaching):
        yield message("loss-weights", text)


def _of_window(
    name: str, stage: FullStage, recipe: Recipe, cohort: Cohort, teaching: Sequence[str]
) -> Iterator[Message]:
    """A caution where a window is that of 8-bit pictures, and scans are none, with the key of a map that fits them."""
    if recipe.intensity[name].window != (0, GREY_LEVELS):
        return
    headers = [header for header in map(cohort.header, teaching) if name in header.visible]
    if not headers:
        return
    scan = scan_of(name, headers)
    if scan.least >= 0 and scan.most <= GREY_LEVELS:
        return
    fitting, _ = intensity(scan, "target" if name in stage.data.target else "source")
    keys = ", ".join(f"{key}={json.dumps(value)}" for key, value in fitting.items())
    text = f"intensity.{name} is the window of 8-bit pictures (0 to {GREY_LEVELS}), and {name} has {scan.least:.4g} to {scan.most:.4g} {scan.unit} here, of which all beyond the window is lost. A map that fits: --set 'intensity.{name}={{{keys}}}'."
    yield message("window", text, grade="caution")


def _notes_on_patches(data: DataSettings, cohort: Cohort) -> Iterator[str]:
    """What patches of each plane cut off, and what those of the first one fill in."""
    for plane in data.by_plane:
        if text := note_on_cut(cohort, plane):
            yield f"slices {plane.axes}: {text}" if data.planes else text
    if text := note_on_padding(cohort, data):
        yield text


def _weights_note(stage: FullStage, cohort: Cohort, teaching: Sequence[str]) -> str:
    """The number of training cases with weighted voxels; "" if the recipe weights none."""
    if not stage.data.weigh:
        return ""
    marked = sum(_is_marked(cohort.case(case), stage.data) for case in teaching)
    weights = ", ".join(f"{key} {times:g} times" for key, times in stage.data.weigh.items())
    nothing = ": data.weigh CHANGES NOTHING" if not marked else ""
    loss = " (method.ssim is not weighed)" if getattr(stage.method, "ssim", 0) else ""
    cases = f"{marked} of {len(teaching)} training cases"
    return f"{cases} have voxels that count more in the loss ({weights}){nothing}{loss}."


def _is_marked(case: PreparedCase, data: DataSettings) -> bool:
    maps = [
        case.arrays[LABEL + name][:]
        if name in case.header.labels
        else np.full(case.header.shape, NO_LABEL)
        for name in data.labels
    ]
    weight = data.weight(torch.from_numpy(np.stack(maps).astype(np.float32))[None])
    return weight is not None and bool((weight != 1).any())


def _sides(stage: FullStage, cohort: Cohort) -> str:
    """How many cases have the sources, and how many the targets, where they are taken apart."""
    training = [set(entry.present) for entry in cohort.cases if entry.split == "train"]
    with_sources = sum(set(stage.data.source) <= there for there in training)
    with_targets = sum(set(stage.data.target) <= there for there in training)
    return f"without pairs: {with_sources} training cases have {', '.join(stage.data.source)}, {with_targets} have {', '.join(stage.data.target)}; validation needs cases with both."


def check_scale(cohort: Cohort, data: DataSettings, recipe: Recipe) -> None:
    """Raise BadInput as check_one_scale, check_floor and check_filled do, of the training cases of a stage's data."""
    where = cohort.folder
    headers = [cohort.header(case) for case in training_cases(cohort, data)]
    check_one_scale(headers, data.target, where)
    for name in sorted(data.modalities):
        spec = recipe.intensity[name]
        for header in headers:
            check_floor(name, spec, header, f"{where}: {header.case}")
        check_filled(name, spec, headers, where)
