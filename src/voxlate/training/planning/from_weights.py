"""Trainings that begin from weights: a starter in a plan, and a run or starter that is adapted to another site."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput, plural
from voxlate.base.executors.case_work import StepCallback, no_report
from voxlate.base.messages import Say, message
from voxlate.base.option import merge
from voxlate.scans.cases.prepared import Cohort, open_cohort
from voxlate.scans.cohorts.path_names import scans_named
from voxlate.scans.images.ranges import window_sentence
from voxlate.scans.images.units import unit_of
from voxlate.training.batches.augment import SHAPES
from voxlate.training.planning.cohort_facts import (
    CohortFacts,
    Roles,
    Scan,
    cohort_facts,
    not_in_hu,
)
from voxlate.training.planning.probe import Probe
from voxlate.training.planning.rules import (
    Draft,
    Tables,
    average_decay,
    intensity,
    learning_rate,
)
from voxlate.training.recipe import Recipe, from_dict, to_dict, with_tables
from voxlate.training.recipe.training_settings import BACKWARD
from voxlate.training.run import Run, weights_of
from voxlate.training.starters.card import Card, read_card
from voxlate.training.starters.names import folder_of, is_starter, run_folder, starter_names
from voxlate.training.train import Beginning, train
from voxlate.training.training_options import AdaptOptions
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
MOST_SPACING_RATIO = 1.5  # beyond the pixels of a starter's training
BODIES = {True: "brains without a skull", False: "heads with their skull"}  # by Card.stripped
RATE = 0.25  # factor of the learning rate, so that the run is not forgotten
VALIDATIONS = 8
PATIENCE = 3  # validations without a lower error after which an adaptation ends
# Items of each validation: as many as cost this share of the training's network evaluations, within bounds.
VALIDATION_COST = 0.15
FEWEST_ITEMS, MOST_ITEMS = 4, 32
SPARE = 0.11  # share of the minutes for validations


@dataclass(frozen=True)
class Starter:
    """A starter for a cohort: starter:NAME, and its recipe with the cohort's names.

    kept: the modalities that keep its intensity maps; whole: the maps of the others in its own training.
    """

    name: str
    tables: Tables
    kept: set[str]
    whole: dict[str, Tables]


def fit_starter(name: str, names: Mapping[str, str], facts: CohortFacts) -> Starter:
    """A starter for a cohort; names: of the cohort's modalities by the starter's.

    A modality in another unit than the starter's, as pictures are, has the map of a plan. Contrasts and label maps of its
    synthetic heads are not asked of the cohort.
    """

    def by_new_name(table: Mapping[str, Any]) -> dict[str, Any]:
        """A table by the cohort's names."""
        return {names.get(key, key): value for key, value in table.items()}

    tables = copy.deepcopy(read_header(Run(folder_of(name)).weights())["recipe"])
    data, synth = tables["data"], tables["synth"]
    for key in ("physics", "labels", "weigh"):
        data.pop(key, None)
    for side in ("source", "target"):
        data[side] = [names.get(key, key) for key in data[side]]
    maps = tables["intensity"] = by_new_name(tables["intensity"])
    if "peak_shares" in synth:
        synth["peak_shares"] = by_new_name(synth["peak_shares"])
    kept, whole = set[str](), dict[str, Tables]()
    for modality in facts.scans.keys() & names.values():
        scan = facts.scans[modality]
        if _is_in_usual_unit(scan):
            kept.add(modality)
        else:
            whole[modality] = maps[modality]
            maps[modality], _ = intensity(
                scan, "target" if modality in data["target"] else "source"
            )
    return Starter(name, tables, kept, whole)


def _is_in_usual_unit(scan: Scan) -> bool:
    """Whether a modality's values are in the unit that its name suggests, as those of a starter's training were.

    Grey levels of an MR are as arbitrary as its own unit.
    """
    wanted = unit_of(scan.name)
    if wanted == "a.u.":
        return scan.unit in (wanted, "grey")
    return scan.unit == wanted and not scan.pictures


def find_starter(facts: CohortFacts, roles: Roles) -> tuple[Starter | None, str]:
    """The starter that fits a cohort and its roles, and the reason for it or against all; "" if none is installed."""
    against = []
    for name in starter_names():
        card = read_card(folder_of(name))
        if reason := reason_against(card, facts, roles):
            against.append(f"a training cannot start from {name}: {reason}")
            continue
        names = card.match(roles.source, roles.target) or {}
        others = [
            f"{own} is taken as {theirs}; "
            for theirs, own in names.items()
            if own not in card.names_of(theirs)
        ]
        why = f"{name}, because {''.join(others)}it synthesises {' and '.join(roles.target)} of {' and '.join(roles.source)} of {BODIES[card.stripped]} with pixels of {facts.pixel_mm:.2g} mm; it was trained on {card.trained_on}"
        return fit_starter(name, names, facts), why
    return None, f"random weights: {'; '.join(against)}" if against else ""


def reason_against(card: Card, facts: CohortFacts, roles: Roles) -> str:
    """The reason why a training cannot begin from a starter; "" if it can."""
    if card.match(roles.source, roles.target) is None:
        known = {*chain.from_iterable(map(card.names_of, card.target))}
        missing = [name.upper() for name in sorted({*roles.target} - known)]
        return (
            f"it synthesises no {' and no '.join(missing)}" if missing else "it reads other scans"
        )
    if roles.completes and facts.gaps:
        return "its training had every contrast of each case, and cases here lack some"
    return other_scans(card, facts)


def other_scans(card: Card, facts: CohortFacts) -> str:
    """How the scans of a cohort differ from those of a starter's training; "" if they do not."""
    if facts.bodies not in ("", "brain" if card.stripped else "head"):
        return f"it knows {BODIES[card.stripped]}, and most scans here show {BODIES[not card.stripped]}"
    finest, coarsest = card.spacing_mm
    if finest / MOST_SPACING_RATIO <= facts.pixel_mm <= coarsest * MOST_SPACING_RATIO:
        return ""
    return f"it was trained on pixels of {finest:.2g} to {coarsest:.2g} mm, and pixels here are {facts.pixel_mm:.2g} mm"


def begin_from(starter: Starter, draft: Draft) -> None:
    """Give the draft of a first stage the starter's network, intensities and at least its changes of shape."""
    own, tables, facts, data = starter.tables, draft.tables, draft.facts, draft.data
    name, shapes = starter.name, own["data"].get("augment", {})
    data.pop("stack", None)
    draft.why.pop("data.stack", None)
    data |= {key: own["data"][key] for key in ("stack", "lift") if own["data"].get(key)}
    tables["intensity"] |= {key: own["intensity"][key] for key in tables["intensity"]}
    draft.why |= {f"intensity.{key}": f"that of {name}" for key in starter.kept}
    draft.set("net", own["net"], f"that of {name}")
    if tuple(data["patch"][1:]) == tuple(facts.shape[1:]):
        # patches are whole slices, and a starter keeps its response to another border
        tables["net"] = {**own["net"], "border": "zeros"}
    # The larger ones of both: a starter learns few patients by heart within 200 steps (MAE 0.068 of held-out heads without
    # the starter's, 0.065 with them; one seed).
    augment = data["augment"]
    for key in (*SHAPES, "elastic_points"):
        if shapes.get(key):
            augment[key] = max(augment.get(key, 0), shapes[key])
    why = f"changes of shape at least as strong as those of {name}, whose network learns few patients by heart; without it {draft.why['data.augment']}"
    draft.set("data.augment", augment, why)
    draft.set("start_from", name)
    for target, said in show_windows(starter, facts.cohort, tables).items():
        draft.why[f"start_window.{target}"] = said
    kept = round(COUNTS_AS / (COUNTS_AS + facts.patients), 3)
    why = f"{kept:.0%} of the starter's weights are kept, unless the error of validation patients is less with all of them: it counts as {plural(COUNTS_AS, 'patient')} beside {facts.patients}"
    draft.set("train.keep_start", kept, why)
    # In a narrow window the output answers many times as much to a step. Slices of two heads by four others, 450 steps, levelled
    # MAE and Dice of bone at 2e-3, 1e-3 and 5e-4: 0.0711, 0.755; 0.0689, 0.770; 0.0701, 0.766.
    short = 0 if tables.get("start_window") else SHORT_STEPS
    tables["train"]["optimiser"]["lr"] = learning_rate(draft.steps, short, draft.size.width)


def show_windows(starter: Starter, cohort: Cohort, tables: Tables) -> dict[str, str]:
    """Let a recipe's tables rescale a starter's output to the windows of pictures; returns the reason by target.

    What the starter puts beyond a window is right, so the slope of the output there falls with the window's width. Losses
    at levels of its own range are dropped.
    """
    why = dict[str, str]()
    method = tables["method"]
    for name in tables["data"]["target"]:
        whole = starter.whole.get(name, {})
        if name not in cohort.windows or whole.get("kind") != "window":
            continue
        low, high = cohort.windows[name]
        tables["start_from"] = starter.name
        tables.setdefault("start_window", {})[name] = [low, high]
        share = (high - low) / (whole["high"] - whole["low"])
        method["leak"] = round(share * method.get("leak", 1.0), 5)
        for key in ("windows", "borders"):
            method.pop(key, None)
        said = window_sentence(name, (low, high), cohort.has_stated_window)
        why[name] = (
            f"{said}, to which the output of {starter.name}, {whole['low']:g} to {whole['high']:g} HU, is rescaled"
        )
    return why


def adapt(
    run: Path | str,
    data: Path | str,
    out: Path | str,
    options: AdaptOptions | None = None,
    *,
    progress: StepCallback = no_report,
    say: Say = lambda _: None,
    **changes: Any,
) -> Run:
    """Continue a run, weights file or starter on a prepared cohort of another site, in a run of its own.

    The learning rate is a quarter of the run's. After every eighth of the steps the held-out cases of `data` are
    validated, and the weights of the least error are kept, those of the run itself among them. changes: fields of the
    options. steps: instead of minutes, of the last stage; The same call resumes. Raises BadInput if the run has an
    autoencoder, and if the cohort does not fit or holds no validation case.
    """
    asked = merge(AdaptOptions, options, changes)
    data, out = Path(data), Path(out)
    weights = weights_of(run_folder(run))
    own, begun = Run(weights.parent), Run(out)
    header = read_header(weights)
    cohort = open_cohort(data)
    facts = cohort_facts(cohort)
    tables, units = header["recipe"], header["units"]
    if is_starter(run):
        starter = _fit_to(run, facts, say)
        tables, units = starter.tables, {name: facts.scans[name].unit for name in starter.kept}
    for stage in [*tables.get("stages", []), tables]:
        for key in ("start_from", "start_window"):
            stage.pop(key, None)
    if is_starter(run):
        for said in show_windows(starter, cohort, tables).values():
            say(message("assumed", f"{said}."))
    recipe = from_dict(tables, f"{weights} (header)", asked.allow_code)
    check_scans(recipe, units, facts)
    if begun.provenance.exists():
        text = f"{out} is continued as it was begun: minutes and steps stay as they were. Another --out adapts anew."
        say(message("resumed", text))
        adapted = from_dict(begun.origin["recipe"], f"{out}", asked.allow_code)
    else:
        adapted = _adapt_recipe(recipe, cohort, asked)
    starts = {stage.name: own.weights(stage.name) for stage in recipe.stages}
    beginning = Beginning(
        head=f"# Adapted from {recipe.title}.\n",
        starts={**starts, "final": weights},
        calibrated=bool(own.calibrations),
    )
    done = train(
        adapted, data, out, device=asked.device, beginning=beginning, progress=progress, say=say
    )
    kept = read_header(done.weights())["kept_step"]
    of_step = f"those of step {kept} of {adapted.train.steps}" if kept else f"those of {run}"
    text = f"kept weights: {of_step}. Scans of the first site may have more error than with {run}."
    say(message("adapted", text))
    return done


def _fit_to(run: Path | str, facts: CohortFacts, say: Say) -> Starter:
    """A starter with the cohort's scans in place of its modalities; a caution is said where these differ from its own."""
    card = read_card(run_folder(run))
    names = {}
    for own in (*card.source, *card.target):
        stated = scans_named(facts.cohort.modalities, card.names_of(own))
        names[own] = stated[0] if stated else own
    if reason := other_scans(card, facts):
        text = f"{run} does not fit these scans: {reason}. Train on them with voxlate train auto."
        say(message("other-preparation", text, grade="caution"))
    return fit_starter(str(run), names, facts)


def check_scans(recipe: Recipe, units: Mapping[str, str], facts: CohortFacts) -> None:
    """Raise BadInput if scans of the run have another unit, or most of them cannot have it.

    units: the run's, by its modalities.
    """
    cohort = facts.cohort
    for name, unit in units.items():
        found = cohort.units.get(name, unit)
        wrong, count = not_in_hu(facts, name)
        if found == "HU" and 2 * len(wrong) > count:
            scan = facts.scans[name]
            found = f"values of {scan.least:g} to {scan.most:g}, which are no Hounsfield units"
        if found != unit:
            raise BadInput(
                f"{cohort.folder}: expected {name} in the unit of the run '{recipe.title}' ({unit}), found {found}. Are the files swapped, or pictures? Convert the scans and prepare them again, or plan a training of its own with voxlate train auto."
            )


def _adapt_recipe(recipe: Recipe, cohort: Cohort, asked: AdaptOptions) -> Recipe:
    """The run's recipe with a lower rate, as many steps as fit, and the best validation's weights kept, in all stages."""
    tables = to_dict(recipe)
    tables["title"] += ", adapted"
    stages = [*tables.get("stages", []), tables]
    for stage in stages:
        # images are read, whatever the run's contrasts were drawn from, and all voxels count alike
        for key in ("physics", "labels", "weigh"):
            stage.get("data", {}).pop(key, None)
    read_by = with_tables(recipe, tables, "the adapted recipe")
    for stage, steps in zip(stages, _steps(read_by, cohort, asked)):
        stage["train"] = lower_rate(stage["train"], steps)
    return with_tables(recipe, tables, "the adapted recipe")


def lower_rate(train: Tables, steps: int) -> Tables:
    """The table `train` of an adaptation: a lower rate, and the best validation's weights are kept."""
    unfit = ("epochs", "stop", "best", "keep_start", "save_every")
    kept = {key: value for key, value in train.items() if key not in unfit}
    optimiser = train["optimiser"]
    warm_up = min(optimiser.get("warm_up", 0), max(steps // 10, 0))
    every = max(steps // VALIDATIONS, 1)
    # Each item of a validation costs a loss and an image.
    affordable = VALIDATION_COST * BACKWARD * train["batch"] * every / 2
    return {
        **kept,
        "steps": steps,
        "ema": average_decay(steps),
        "optimiser": {**optimiser, "lr": RATE * optimiser["lr"], "warm_up": warm_up},
        "validate_every": every,
        "validation_items": min(max(int(affordable), FEWEST_ITEMS), MOST_ITEMS),
        "best": {"patience": PATIENCE},
    }


def _steps(recipe: Recipe, cohort: Cohort, asked: AdaptOptions) -> list[int]:
    """Steps of each stage in the proportions of the run's own steps: as asked for, or those that fit in the minutes."""
    lengths = [stage.train.steps for stage in recipe.all_stages]
    if asked.steps is not None:
        return [round(asked.steps * count / lengths[-1]) for count in lengths]
    probe = Probe(cohort, asked.minutes, asked.device)
    whole = 0.0
    for stage, count in enumerate(lengths):
        seconds = probe.measure(recipe, stage)
        if seconds is None:
            raise BadInput(
                f"adapt: expected enough free memory for a step of the run, found {probe.memory_bytes / 2**30:.2f} GiB. Free some memory."
            )
        whole += count * seconds
    factor = probe.seconds(1 - SPARE) / whole
    return [max(int(count * factor), 1) for count in lengths]
