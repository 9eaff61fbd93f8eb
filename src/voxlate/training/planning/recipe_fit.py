"""The fit of each shipped recipe and starter to a prepared cohort: its rank, or the reason against it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput
from voxlate.scans.cases.prepared import Cohort, open_cohort
from voxlate.training.batches.patches import (
    note_on_padding,
    share_of_patch,
    training_cases,
    usable_cases,
)
from voxlate.training.planning.cohort_facts import cohort_facts
from voxlate.training.planning.roles import refuse_maps, roles_of
from voxlate.training.planning.starters import reason_against, reason_against_training
from voxlate.training.recipe import Recipe, read
from voxlate.training.recipe.text import is_start, names
from voxlate.training.recipe_messages import check_scale
from voxlate.training.starters.card import Card, read_card
from voxlate.training.starters.names import folder_of, starters_to_run


@dataclass(frozen=True)
class Fit:
    """The fit of a shipped recipe or starter to a cohort.

    against: the reason why it cannot be used on the cohort; notes: sentences on unusual facts; why: the reasons for its
    rank in one line; unpaired: whether it learns without pairs from a cohort that has pairs.
    """

    name: str
    title: str
    against: str = ""
    notes: tuple[str, ...] = ()
    why: str = ""
    unpaired: bool = False


def fits(data: Path | str) -> list[Fit]:
    """All shipped recipes and starters: the best fit first, then starters that fit, then those that do not fit.

    Paired methods, filled patches, many cases, all modalities, systems and short trainings come first. No voxel is read,
    except for recipes with data.physics.
    """
    cohort = open_cohort(data)
    ranked = sorted(_ranked(name, cohort) for name in names())
    recipes = [Fit(*fit) for _, fit in ranked]
    return sorted([*recipes, *_starters(cohort)], key=_is_unfit)


def _is_unfit(fit: Fit) -> bool:
    return bool(fit.against)


def _ranked(name: str, cohort: Cohort) -> tuple[tuple[object, ...], tuple[Any, ...]]:
    """The key by which the fit of a recipe is sorted, and its fields."""
    recipe = read(name)
    try:
        cohort = recipe.with_maps_of(cohort)
        if reason := _lacks(recipe, cohort):
            return (math.inf, name), (name, recipe.title, reason)
        for stage in recipe.all_stages:
            usable_cases(cohort, stage.data, "train")
            check_scale(cohort, stage.data, recipe)
        notes = tuple(dict.fromkeys(filter(None, _notes(recipe, cohort))))
    except BadInput as error:
        return (math.inf, name), (name, recipe.title, _reason(str(error)))
    stages = recipe.all_stages
    in_training = set().union(*(training_cases(cohort, stage.data) for stage in stages))
    empty = max(1 - share_of_patch(cohort, stage.data) for stage in stages)
    unused = sorted(set(cohort.modalities) - recipe.modalities)
    steps = sum(stage.train.steps for stage in stages)
    training = (case.present for case in cohort.cases if case.split == "train")
    has_pairs = any(recipe.modalities <= {*present} for present in training)
    unpaired = has_pairs and not recipe.method.needs_pairs
    facts = (
        f"patches filled to {1 - empty:.0%}",
        f"{len(in_training)} of {len(cohort.splits['train'])} training cases",
        f"{', '.join(unused)} not used" if unused else "every modality used",
        f"{steps} steps" if steps else "a length in epochs",
    )
    rank = (
        unpaired,
        round(empty, 1),
        -len(in_training),
        len(unused),
        not is_start(name),
        recipe.method.iterates,
        steps or math.inf,
        name,
    )
    return rank, (name, recipe.title, "", notes, "; ".join(facts), unpaired)


def _lacks(recipe: Recipe, cohort: Cohort) -> str:
    """The reason why a recipe cannot be trained on the modalities and the mask of a cohort; "" if it can."""
    if missing := sorted(recipe.modalities - set(cohort.modalities)):
        return f"needs {', '.join(missing)}, which the cohort lacks"
    brain_of = cohort.provenance.get("mask_from")
    if not recipe.finds_mask_of(brain_of):
        return f"needs a mask that is computed from its sources; the cohort's mask is of {brain_of}"
    return ""


def _starters(cohort: Cohort) -> list[Fit]:
    """The fit of each installed starter, which synthesises without training."""
    fits = []
    for name in starters_to_run():
        folder = folder_of(name)
        card = read_card(folder)
        try:
            against = reason_against(folder, card, cohort_facts(cohort))
        except BadInput as error:
            against = _reason(str(error))
        why = f"trained on {card.trained_on}; no training needed"
        if not against:
            why += f"; {_in_training(card, cohort)}"
        fits.append(Fit(name, card.title, against, why=why))
    return fits


def _in_training(card: Card, cohort: Cohort) -> str:
    """Whether a training that is planned without further options may start from a starter."""
    try:
        facts = cohort_facts(cohort)
        refuse_maps(facts)
        against = reason_against_training(card, facts, roles_of(facts), "both")
    except BadInput as error:
        against = _reason(str(error))
    if against:
        return f"train auto does not initialise from it ({against})"
    return "train auto tests it and may initialise from it"


def _reason(sentence: str) -> str:
    """The part of an error that states what was expected and found, without its place and advice."""
    at = sentence.find("expected")
    return sentence[max(at, 0) :].split(". ")[0].removesuffix(".")


def _notes(recipe: Recipe, cohort: Cohort) -> Iterator[str]:
    depth = max(stage.data.patch[0] for stage in recipe.all_stages)
    deepest = max(entry.shape[0] for entry in cohort.cases)
    if depth > deepest:
        yield f"needs {depth} slices at once, and the cohort's deepest scan has {deepest}"
    for stage in recipe.all_stages:
        yield note_on_padding(cohort, stage.data)
