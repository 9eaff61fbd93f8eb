"""Adaptation: a run or starter that continues on a few cases of another site, without forgetting the old ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from voxlate.cases.case import PROTONS
from voxlate.cases.prepared import Cohort, open_cohort
from voxlate.options.option import merge
from voxlate.options.train import AdaptOptions
from voxlate.planning.facts import facts_of
from voxlate.planning.probe import Limits, Probe, free_memory
from voxlate.planning.rules import Tables
from voxlate.planning.site import (
    check_held_out,
    check_units,
    check_values,
    truth_cautions,
    validation_errors,
    watched,
)
from voxlate.planning.stages import STARTED
from voxlate.planning.starters import gentle, matched, renamed
from voxlate.recipe import Recipe, from_dict, to_dict, with_tables
from voxlate.scoring.provenance import read_run
from voxlate.starters.card import Card, read_card
from voxlate.starters.names import is_starter
from voxlate.system.errors import BadInput
from voxlate.system.messages import Say, message
from voxlate.training.changes import first_change
from voxlate.training.continuing import training_cohort
from voxlate.training.log import StepCallback
from voxlate.training.log_file import lines_of
from voxlate.training.run import Run, weights_of
from voxlate.training.starter import run_folder
from voxlate.training.train import Beginning, train
from voxlate.training.weights import read_header

RATE = 0.25  # factor of the learning rate, so that the run is not forgotten
SPARE = 0.15  # share of the minutes for validations and saving


def adapt(
    run: Path | str,
    data: Path | str,
    out: Path | str,
    options: AdaptOptions | None = None,
    *,
    progress: StepCallback = lambda *_: None,
    say: Say = lambda _: None,
    **changes: Any,
) -> Run:
    """Continue a run, weights file or starter on a prepared cohort of another site, in a run of its own.

    The learning rate is a quarter of the run's. After every eighth of the steps the held-out cases of `data` are
    validated, and the weights of the least error are kept, those of the run itself among them. changes: fields of the options. steps: instead of
    minutes, of the last stage; replay: the old prepared cohort, by default that of the run where it is still there;
    share: of the items that are of it, 0 for none. The same call resumes. Raises BadInput if the run has an
    autoencoder, if the cohort does not fit or holds no validation case, and for no steps.
    """
    asked = merge(AdaptOptions, options, changes)
    data = Path(data)
    out = Path(out)
    weights = weights_of(run_folder(run))
    folder = weights.parent
    header = read_header(weights)
    cohort = open_cohort(data)
    card = read_card(folder) if is_starter(run) else None
    recipe = from_dict(
        _named(header["recipe"], card, cohort), f"{weights} (header)", asked.allow_code
    )
    _check(recipe, folder, asked.share, asked.steps)
    check_held_out(cohort)
    units = _units(header, recipe)
    check_units(recipe, units, cohort)
    check_values(recipe, units, cohort)
    for caution in truth_cautions(recipe, units, cohort):
        say(caution)
    if difference := _other_preparation(header, cohort):
        say(message("other-preparation", difference))
    old = _replayed(folder, asked, say)
    begun = Run(out).provenance.exists()
    if begun:
        text = f"{out} is continued as it was begun: minutes, steps and the share of replay stay as they were. Another --out adapts anew."
        say(message("resumed", text))
        adapted = from_dict(read_run(Run(out).provenance)["recipe"], f"{out}", asked.allow_code)
    else:
        replayed = None if old is None else open_cohort(old)
        adapted = _gentle_recipe(recipe, cohort, replayed, asked)
    origin = Beginning(
        head=f"# Adapted from {recipe.title}.\n",
        starts=_starts(recipe, folder, weights),
        calibrated=any(folder.glob("calibration.*.safetensors")),
        replay=old,
    )
    scans = {name: scan for name, scan in facts_of(cohort).scans.items() if name in units}
    done = train(
        adapted,
        data,
        out,
        device=asked.device,
        beginning=origin,
        progress=watched(progress, validation_errors(Run(folder)), scans, say),
        say=say,
    )
    say(message("adapted", _outcome(done, adapted)))
    if origin.calibrated:
        text = (
            f"the calibration of {run} does not hold for {out}: run voxlate calibrate {out} COHORT."
        )
        say(message("not-calibrated", text))
    return done


def _named(tables: Tables, card: Card | None, cohort: Cohort) -> Tables:
    """A recipe's tables; of a starter with the cohort's names of its modalities, where the cohort has one for each."""
    if card is None or set(card.source) | set(card.target) <= set(cohort.modalities):
        return tables
    sources = [_first(card, name, cohort) for name in card.source]
    targets = [_first(card, name, cohort) for name in card.target]
    return renamed(tables, matched(card, sources, targets) or {})


def _units(header: Mapping[str, Any], recipe: Recipe) -> dict[str, str]:
    """The run's unit of each modality, by the recipe's names, which may be those of the cohort."""
    own = header["recipe"]["data"]
    names = zip(
        [*own["source"], *own["target"]], [*recipe.data.source, *recipe.data.target], strict=True
    )
    return {name: header["units"][theirs] for theirs, name in names}


def _first(card: Card, modality: str, cohort: Cohort) -> str:
    """The cohort's first scan that stands for a modality of a starter; the modality itself if it has none."""
    names = (modality, *card.accepts.get(modality, ()))
    return next((name for name in names if name in cohort.modalities), modality)


def _check(recipe: Recipe, folder: Path, share: float, steps: int | None) -> None:
    if any(stage.task.encodes or not stage.method.makes_targets for stage in recipe.all_stages):
        raise BadInput(
            f"{folder}: expected a run without an autoencoder to adapt, found '{recipe.title}'. Train its stages on the new cohort with --reuse."
        )
    if steps is not None and steps < 1:
        raise BadInput(
            f"--steps: expected 1 or more, found {steps}, which would only copy the run. Change it, or use the run as it is."
        )
    if not 0 <= share < 1:
        raise BadInput(
            f"--replay-share: expected a share from 0 to below 1, found {share:g}. Change it."
        )


def _other_preparation(header: Mapping[str, Any], cohort: Cohort) -> str:
    """A sentence where the new cohort was prepared in another way than the scans of the run; "" if it was not."""
    here = dict(vars(cohort.preparation))
    theirs = {key: header.get("preparation", {}).get(key) for key in here}
    change = first_change(_plain(theirs), _plain(here))
    if not change:
        return ""
    return f"the cohort was prepared in another way than the scans of the run ({change}); prepare it in the same way, if the scans allow it."


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in table.items()}


def _replayed(folder: Path, asked: AdaptOptions, say: Say) -> Path | None:
    """The cohort that is replayed; None if there is none, which is said."""
    if asked.share == 0:
        return None
    old = Path(asked.replay) if asked.replay is not None else training_cohort(Run(folder))
    if old is None:
        text = "no replay: the cohort that the run was trained on is not here, so that the run may forget it (--replay PREPARED names it)."
        say(message("no-replay", text))
        return None
    text = (
        f"replay: {asked.share:.0%} of the items are of {old}, so that the run does not forget it."
    )
    say(message("replay", text, share=asked.share))
    return old


def _starts(recipe: Recipe, folder: Path, weights: Path) -> dict[str, Path]:
    """The weights of each stage of the run."""
    starts = {stage.name: Run(folder).weights(stage.name) for stage in recipe.stages}
    for name, path in starts.items():
        if not path.is_file():
            raise BadInput(
                f"{folder}: expected the weights of the stage '{name}', found none. Name the run's folder, in which they are."
            )
    return {**starts, "final": weights}


def _gentle_recipe(
    recipe: Recipe, cohort: Cohort, old: Cohort | None, asked: AdaptOptions
) -> Recipe:
    """The run's recipe with a lower rate, as many steps as fit, and the best validation's weights kept, in all stages.

    old: the cohort that is replayed.
    """
    draws = old is not None and PROTONS in old.modalities
    tables = to_dict(recipe)
    stages = tables.get("stages", [])
    own = [stage.train.steps for stage in recipe.all_stages]
    if asked.steps is None:
        counts = _counts(recipe, own, cohort, asked.minutes, asked.device)
    else:
        counts = [round(asked.steps * count / own[-1]) for count in own]
    for table, count in zip([*stages, tables], counts):
        table["train"] = gentle(table["train"], count, True, RATE)
        for key in STARTED:
            table.pop(key, None)
        if "data" in table and not draws:
            # Without replay of phantoms, only images are read, whatever the run's contrasts were drawn from.
            table["data"].pop("physics", None)
        if old is not None:
            table["train"]["replay"] = asked.share
    tables["title"] = f"{tables['title']}, adapted"
    return with_tables(recipe, tables, "the adapted recipe")


def _counts(
    recipe: Recipe, own: list[int], cohort: Cohort, minutes: float, device: str
) -> list[int]:
    """Steps of each stage that fit in the minutes, in the proportions of the run's own steps."""
    probe = Probe(cohort, Limits(minutes, free_memory(device)), device)
    seconds = []
    for stage in range(len(own)):
        measured = probe.measure(recipe, stage)
        if measured is None:
            raise BadInput(
                f"adapt: expected enough free memory for a step of the run, found {probe.limits.memory_bytes / 2**30:.2f} GiB. Free some memory."
            )
        seconds.append(measured.seconds)
    whole = sum(count * each for count, each in zip(own, seconds))
    factor = probe.seconds * (1 - SPARE) / whole
    return [max(int(count * factor), 1) for count in own]


def _outcome(run: Run, recipe: Recipe) -> str:
    """The validation error before and after, and which weights are kept."""
    header = read_header(run.weights())
    errors = {
        line["step"]: line["validation"]["mae"]
        for _, line in lines_of(run.log)
        if line["stage"] == "final" and "mae" in line.get("validation", {})
    }
    kept = header.get("kept_step", header["steps"])
    before = errors.get(0)
    after = errors.get(kept)
    if before is None or after is None:
        return f"the weights of step {kept} are kept."
    if kept == 0:
        return f"no step lowered the error on held-out cases ({before:.4g} in network units): the weights of the run are kept as they are."
    return f"held-out cases: mean absolute error {before:.4g} before, {after:.4g} after (network units); the weights of step {kept} of {recipe.train.steps} are kept."
