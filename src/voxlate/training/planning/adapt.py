"""Adaptation: a run or starter that continues on a few cases of another site, without forgetting the old ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput
from voxlate.base.executors.case_work import StepCallback, no_report
from voxlate.base.messages import Say, message
from voxlate.base.option import merge
from voxlate.scans.cases.prepared import Cohort, open_cohort
from voxlate.scans.cohorts.path_names import scans_named
from voxlate.training.planning.cohort_facts import CohortFacts, Roles, cohort_facts, is_not_hu
from voxlate.training.planning.probe import Probe, default_memory_limit
from voxlate.training.planning.rules import BATCH, Tables, average_decay
from voxlate.training.planning.starters import Starter, fit_starter, other_scans
from voxlate.training.recipe import Recipe, from_dict, to_dict, with_tables
from voxlate.training.recipe.training_settings import BACKWARD
from voxlate.training.run import Run, weights_of
from voxlate.training.starter import run_folder
from voxlate.training.starters.card import read_card
from voxlate.training.starters.names import is_starter
from voxlate.training.train import Beginning, train
from voxlate.training.training_options import AdaptOptions
from voxlate.training.weights import read_header

RATE = 0.25  # factor of the learning rate, so that the run is not forgotten
VALIDATIONS = 8
PATIENCE = 3  # validations without a lower error after which an adaptation ends
# Items of each validation: as many as cost this share of the training's network evaluations, within bounds.
VALIDATION_COST = 0.15
FEWEST_ITEMS, MOST_ITEMS = 4, 32
SPARE = 0.15  # share of the minutes for validations and saving


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
    if beginning.calibrated:
        text = f"the calibration of {run} does not hold for {out}"
        say(message("not-calibrated", f"{text}: run voxlate calibrate {out} COHORT."))
    return done


def _fit_to(run: Path | str, facts: CohortFacts, say: Say) -> Starter:
    """A starter with the cohort's scans in place of its modalities; a caution is said where these differ from its own."""
    card = read_card(run_folder(run))
    names = {}
    for own in (*card.source, *card.target):
        stated = scans_named(facts.cohort.modalities, card.names_of(own))
        names[own] = stated[0] if stated else own
    source, target = ([names[own] for own in side] for side in (card.source, card.target))
    if reason := other_scans(card, facts):
        text = f"{run} does not fit these scans: {reason}. Train on them with voxlate train auto."
        say(message("other-preparation", text, grade="caution"))
    return fit_starter(str(run), names, facts, Roles(tuple(source), tuple(target), ""))


def check_scans(recipe: Recipe, units: Mapping[str, str], facts: CohortFacts) -> None:
    """Raise BadInput if scans of the run are missing, have another unit, or most of them cannot have it.

    units: the run's, by its modalities.
    """
    cohort, names = facts.cohort, recipe.data.modalities
    unknown = [name for name in names if name not in cohort.modalities]
    if unknown:
        raise BadInput(
            f"{cohort.folder}: expected the scans of the run '{recipe.title}' by its names ({', '.join(names)}), found {', '.join(cohort.modalities)} (no {', '.join(unknown)}). Name the files as the run does, such as CASE/{unknown[0]}.nii.gz, and prepare them again."
        )
    headers = [cohort.header(entry.case) for entry in facts.training]
    for name, unit in units.items():
        found = cohort.units.get(name, unit)
        having = [header for header in headers if found == "HU" and name in header.visible]
        if 2 * sum(is_not_hu(name, header) for header in having) > len(having):
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
        stage.pop("start_from", None)
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
    affordable = VALIDATION_COST * BACKWARD * train.get("batch", BATCH) * every / 2
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
    probe = Probe(cohort, asked.minutes, default_memory_limit(asked.device), asked.device)
    whole = 0.0
    for stage, count in enumerate(lengths):
        seconds = probe.measure(recipe, stage)
        if seconds is None:
            raise BadInput(
                f"adapt: expected enough free memory for a step of the run, found {probe.memory_bytes / 2**30:.2f} GiB. Free some memory."
            )
        whole += count * seconds
    factor = (probe.minutes * 60 - probe.probe_seconds) * (1 - SPARE) / whole
    return [max(int(count * factor), 1) for count in lengths]
