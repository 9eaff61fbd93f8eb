"""What fits a prepared cohort: the starter from which a plan begins, and the shipped recipes."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput, plural
from voxlate.scans.cases.prepared import Cohort, open_cohort
from voxlate.scans.images.mask import WIDEST_BRAIN_MM
from voxlate.scans.images.units import unit_of
from voxlate.training.batches.augment import SHAPES
from voxlate.training.batches.patches import (
    usable_cases,
)
from voxlate.training.planning.cohort_facts import (
    CohortFacts,
    Roles,
    Scan,
)
from voxlate.training.planning.rules import Draft, Tables, Why, learning_rate, reasons_for_training
from voxlate.training.recipe import Recipe, read
from voxlate.training.recipe.text import is_start, names
from voxlate.training.recipe_messages import check_scale
from voxlate.training.run import Run
from voxlate.training.starter import run_folder
from voxlate.training.starters.card import Card, read_card
from voxlate.training.starters.names import starters_to_run
from voxlate.training.weights import read_header

# Number of patients as which the starter counts in the weights that are kept. MAE of two held-out heads by five patients
# with 0, 0.17 and 0.38 of it, 170 to 229 steps: 0.0953, 0.0919, 0.0948 and 0.0667, 0.0680, 0.0712. In network units,
# two others by five with 0, 0.2 and 0.38: 0.132, 0.129, 0.129 and 0.203, 0.213, 0.219; a head by one patient with 0, 0.2 and
# 0.75: 0.205, 0.207, 0.216; a brain by three with 0, 0.2 and 0.5: 0.0558, 0.0554, 0.0575.
COUNTS_AS = 1
# From so many steps on, the rate of short trainings costs one from a starter more than it gains. Muon, the same steps at 2e-3 and 1e-3, MAE:
# a head by five (535 steps) 0.0597, 0.0568; a brain by three (780) 0.0469, 0.0454, where gradients became 1.07 and 0.83 times the
# true ones; another brain (781), which reports in the ledger, 0.0303, 0.0257, where 413 steps at 2e-3 have 0.0267.
SHORT_STEPS = 500
# Changes of intensity of a training from a starter that was drawn in any sequence, which few patients would make it forget. MAE and
# bone Dice of heads by five others, with those of random weights and with these: case16 (535 steps) 0.0632, 0.756 and 0.0588,
# 0.771; case34 0.0761 and 0.0781; case02, whose contrast none of the five has, 0.0568, 0.862 and 0.0573, 0.862 (535), 0.0661, 0.874 and 0.0581, 0.881
# (1,440). Random weights lose (0.0572 and 0.0627 after 884 steps).
ANY_SEQUENCE = {"remap": 1.0, "invert": 0.3}
MOST_SPACING_RATIO = 1.5  # beyond the pixels of a starter's training


@dataclass(frozen=True)
class Starter:
    """A starter that fits a cohort: starter:NAME, its card, and its recipe with the cohort's names of modalities."""

    start_from: str
    card: Card
    tables: Tables


def rename(tables: Tables, names: Mapping[str, str]) -> Tables:
    """A recipe's tables with other names of its modalities; names: by the recipe's own."""

    def by_new_name(table: Mapping[str, Any]) -> dict[str, Any]:
        """A table by the new names."""
        return {names.get(name, name): value for name, value in table.items()}

    changed = copy.deepcopy(tables)
    for stage in (changed, *changed.get("stages", ())):
        data = stage.get("data", {})
        for side in data.keys() & {"source", "target"}:
            data[side] = [names.get(name, name) for name in data[side]]
        if data.get("physics"):
            data["physics"]["contrasts"] = by_new_name(data["physics"]["contrasts"])
    changed["intensity"] = by_new_name(changed["intensity"])
    if "peak_shares" in changed.get("synth", {}):
        changed["synth"]["peak_shares"] = by_new_name(changed["synth"]["peak_shares"])
    return changed


def find_starter(facts: CohortFacts, roles: Roles, mode: str) -> tuple[Starter | None, str]:
    """The starter that fits a cohort and its roles, and the reason for it or against all; "" if none is installed.

    mode: of the plan, whose first stage is a regression, as starters are, unless it draws missing images.
    """
    against = []
    for name in starters_to_run():
        folder = run_folder(name)
        recipe = read_header(Run(folder).weights())["recipe"]
        card = read_card(folder)
        reason = reason_against_training(card, facts, roles, mode)
        if not reason and recipe["net"].get("kind") != "unet":
            reason = "its network is of another kind than those of plans"
        if reason:
            against.append(f"{name} does not fit: {reason}")
            continue
        body = "stripped brains" if card.stripped else "heads with their skull"
        names = card.match(roles.source, roles.target) or {}
        read = [
            f"{other} as {own}" for own, other in names.items() if other not in card.names_of(own)
        ]
        taken = f" (taking {' and '.join(read)})" if read else ""
        why = f"{name}, because it synthesises {roles.task}{taken} of {body} with pixels of {facts.pixel_mm:.2g} mm; it was trained on {card.trained_on} "
        return Starter(name, card, rename(recipe, names)), why
    return None, f"random weights: {'; '.join(against)}" if against else ""


def reason_against_training(card: Card, facts: CohortFacts, roles: Roles, mode: str) -> str:
    """The reason why a plan cannot start from a starter; "" if it can. mode: see find_starter."""
    completes = roles.pairing == "complete"
    if roles.pairing == "unpaired":
        return "the plan is for scans without pairs"
    if completes and not card.completes:
        return "it translates pairs, and the plan is for any missing contrast"
    if completes and facts.gaps:
        return "it knows no cases that lack contrasts"
    if reason := reason_against(card, facts, roles):
        return reason
    if completes and mode != "mean":
        return "it is a regression: add --mode mean to start from it"
    return ""


def reason_against(card: Card, facts: CohortFacts, roles: Roles) -> str:
    """The reason why a starter does not synthesise the targets of a cohort's sources; "" if it does."""
    if card.match(roles.source, roles.target) is None:
        known = chain.from_iterable(map(card.names_of, card.target))
        missing = [name.upper() for name in sorted({*roles.target} - {*known})]
        return (
            f"it synthesises no {' and no '.join(missing)}" if missing else "it reads other scans"
        )
    return _other_scans(card, facts)


def _other_scans(card: Card, facts: CohortFacts) -> str:
    """The reason why a cohort's bodies or pixels are not those of a starter; "" if they are."""
    stripped = facts.brain or facts.wide_mm < WIDEST_BRAIN_MM
    if stripped != card.stripped:
        trained = "brains without a skull" if card.stripped else "heads with their skull"
        return f"it knows {trained}, and bodies here are {facts.wide_mm:.0f} mm wide{', in brain masks' if facts.brain else ''}"
    finest, coarsest = card.spacing_mm
    if not finest / MOST_SPACING_RATIO <= facts.pixel_mm <= coarsest * MOST_SPACING_RATIO:
        return f"its pixels are {finest:.2g} to {coarsest:.2g} mm, and pixels here are {facts.pixel_mm:.2g} mm"
    return ""


def without_training(facts: CohortFacts, roles: Roles, scans: str) -> str:
    """The command by which a starter synthesises the targets at once; "" if none takes these scans.

    scans: their folder in the command.
    """
    for starter in starters_to_run():
        folder = run_folder(starter)
        card = read_card(folder)
        if not reason_against(card, facts, roles):
            # a completion names every contrast as a target, of which some must be there
            missing = roles.target[-1:] if roles.pairing == "complete" else roles.target
            wanted = "".join(f" --missing {name}" for name in missing if card.completes)
            return f"voxlate synth {starter} {scans}{wanted} --out OUT"
    return ""


def begin_from(starter: Starter, draft: Draft) -> None:
    """Give the draft of a first stage the starter's network, intensities and at least its changes of shape."""
    own, tables, facts, why = starter.tables, draft.tables, draft.facts, draft.why
    data = draft.data
    data.pop("stack", None)
    why.pop("data.stack", None)
    data |= {key: own["data"][key] for key in ("stack", "lift") if own["data"].get(key)}
    for name in tables["intensity"]:
        if _is_in_usual_unit(facts.scans[name]):
            tables["intensity"][name] = own["intensity"][name]
            why[f"intensity.{name}"] = Why(f"that of {starter.start_from}")
    tables["net"] = own["net"]
    why["net"] = Why(f"that of {starter.start_from}")
    augment, shapes = data["augment"], own["data"].get("augment", {})
    # The larger ones of both: a starter learns few patients by heart within 200 steps (MAE 0.068 of held-out heads without
    # the starter's, 0.065 with them; one seed).
    data["augment"] = augment | {
        name: max(augment.get(name, 0), shapes[name])
        for name in (*SHAPES, "elastic_points")
        if shapes.get(name)
    }
    if data["augment"] != augment:
        why["data.augment"] = Why(
            f"the network of {starter.start_from} learns few patients by heart",
            "changes of shape as strong as its own",
        )
    if _knows_any_sequence(own["data"]) and "remap" in augment:
        data["augment"] |= ANY_SEQUENCE
        fact, reason = why["data.augment"]
        reason += "; bright and dark change places, because the starter knows any sequence"
        why["data.augment"] = Why(fact, reason)
    if tuple(data["patch"][1:]) == tuple(facts.shape[1:]):
        tables["net"] = {**own["net"], "border": "zeros"}
        why["net.border"] = Why(
            "patches are whole slices, and a starter keeps its response to another border",
            "zeros also in synthesis",
        )
    tables["start_from"] = starter.start_from
    kept = round(COUNTS_AS / (COUNTS_AS + facts.patients), 3)
    tables["train"]["keep_start"] = kept
    tables["train"]["optimiser"]["lr"] = learning_rate(draft.steps, SHORT_STEPS, draft.size)
    why |= reasons_for_training(tables["train"], draft.size.width)
    why["train.keep_start"] = Why(
        f"the starter counts as {plural(COUNTS_AS, 'patient')} beside {facts.patients}",
        f"{kept:.0%} of its weights are kept, unless the error of validation patients is less with all of them",
    )


def _knows_any_sequence(data: Tables) -> bool:
    """Whether the sources of a training were drawn in any sequence."""
    contrasts = data.get("physics", {}).get("contrasts", {})
    drawn = [contrasts.get(name, {}).get("sequence") for name in data["source"]]
    return set(drawn) == {"any"}


def _is_in_usual_unit(scan: Scan) -> bool:
    """Whether a modality's values are in the unit that its name suggests, as those of a starter's training were.

    Grey levels of an MR are as arbitrary as its own unit.
    """
    wanted = unit_of(scan.name)
    if wanted == "a.u.":
        return scan.unit in (wanted, "grey")
    return scan.unit == wanted and not scan.pictures


@dataclass(frozen=True)
class Fit:
    """The fit of a shipped recipe to a cohort; against: the reason why it cannot be trained on it."""

    name: str
    title: str
    against: str = ""


def fits(data: Path | str) -> list[Fit]:
    """All shipped recipes: those that can be trained on a cohort first, of these the ones that use most modalities.

    No voxel is read, except for recipes with data.physics.
    """
    cohort = open_cohort(data)
    ranked = []
    for name in names():
        recipe = read(name)
        against = _reason_against_recipe(recipe, cohort)
        rank = (bool(against), -len(recipe.modalities), not is_start(name), name)
        ranked.append((rank, Fit(name, recipe.title, against)))
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
