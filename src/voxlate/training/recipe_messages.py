"""Whether a recipe fits a cohort: what is said before the first step, scales that are refused, and recipes that fit."""

import json
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path

from voxlate.base.errors import BadInput, first_of
from voxlate.base.messages import Message, message
from voxlate.scans.cases.prepared import SPLITS, Cohort, open_cohort
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
    usable_cases,
)
from voxlate.training.planning.cohort_facts import GREY_LEVELS, scan_of
from voxlate.training.planning.rules import intensity
from voxlate.training.recipe import FullStage, Recipe, read
from voxlate.training.recipe.text import is_start, names
from voxlate.training.validate import validation_split


def check_training(recipe: Recipe, cohort: Cohort) -> list[Message]:
    """Messages on unusual data of the stages and on their validation, each once."""
    said = (one for stage in recipe.all_stages for one in _of_stage(stage, recipe, cohort))
    return list(dict.fromkeys(said))


def fold_note(cohort: Cohort, fold: int) -> Message:
    """A message on the held-out cases of a fold."""
    train, val, test = (cohort.splits[name] for name in SPLITS)
    count = len({case.fold for case in cohort.cases} - {None}) or FOLDS
    text = f"fold {fold} of {count}: {len(train)} cases train, {len(val)} validate ({first_of(val)}); the test split ({len(test)}) is not used."
    return message("fold", text, train=len(train), val=len(val))


def _of_stage(stage: FullStage, recipe: Recipe, cohort: Cohort) -> Iterator[Message]:
    data = stage.data
    lacking = missing_modalities(cohort, data, "train")
    if lacking and not data.apart:
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


def fits(data: Path | str) -> list[dict[str, str]]:
    """All shipped recipes: those that can be trained on a cohort first, of these the ones that use most modalities.

    Returns name and title of each, and under `against` the reason why it cannot be trained on the cohort, or "". No voxel
    is read, except for recipes with data.physics.
    """
    cohort = open_cohort(data)
    ranked = []
    for name in names():
        recipe = read(name)
        against = _reason_against_recipe(recipe, cohort)
        rank = (bool(against), -len(recipe.modalities), not is_start(name), name)
        ranked.append((rank, {"name": name, "title": recipe.title, "against": against}))
    return [fit for _, fit in sorted(ranked, key=itemgetter(0))]


def _reason_against_recipe(recipe: Recipe, cohort: Cohort) -> str:
    """The reason why a recipe cannot be trained on a cohort; "" if it can."""
    try:
        cohort = recipe.with_maps_of(cohort)
        if missing := sorted(recipe.modalities - set(cohort.modalities)):
            return f"needs {', '.join(missing)}, which the cohort lacks"
        brain_of = cohort.provenance.get("mask_from")
        if not recipe.finds_mask_of(brain_of):
            return f"needs a mask that is computed from its sources; the cohort's mask is of {brain_of}"
        for stage in recipe.all_stages:
            usable_cases(cohort, stage.data, "train")
            check_scale(cohort, stage.data, recipe)
    except BadInput as error:
        # what was expected and found, without its place and advice
        sentence = str(error)
        return sentence[max(sentence.find("expected"), 0) :].split(". ")[0].removesuffix(".")
    return ""
