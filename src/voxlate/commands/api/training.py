"""The commands that train: recipes, starters, plan, train, adapt, import_weights, calibrate."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from rich.text import Text

from voxlate.base.errors import BadInput
from voxlate.base.groups import grouped
from voxlate.base.option import AllowCode, MainOption, Object
from voxlate.commands.api.console import out as terminal
from voxlate.commands.api.entry import (
    RUN,
    Address,
    Argument,
    Command,
    LoadedModel,
    Out,
    Place,
    Run,
)
from voxlate.commands.api.progress import Reporter
from voxlate.evaluation.calibrate_options import CalibrateOptions
from voxlate.training.training_options import (
    AUTO,
    AdaptOptions,
    ImportOptions,
    PlanOptions,
    TrainOptions,
)

if TYPE_CHECKING:
    from voxlate.training.planning.plan import Plan
    from voxlate.training.run import Run as Trained

Publication = Literal["xmodality", "kl-f4", "kl-f8"]


def recipe_names() -> list[str]:
    """The recipes that `train` takes by name."""
    from voxlate.training.recipe.text import names

    return [AUTO, *names()]


NAMES = "voxlate.commands.api.training:recipe_names"


def paper_names() -> list[str]:
    """The papers whose recipes `recipes` lists."""
    from voxlate.training.recipe.text import papers

    return papers()


def _recipe_lines(
    rows: Any, name: str | None, paper: str | None, cohort: Path | None, allow_code: bool
) -> Iterator[Any]:
    if cohort is not None:
        yield from _fit_lines(rows, cohort)
    elif name is None:
        yield from _recipes_in_lines(rows)
        if paper is None:
            yield f"\nThose of a paper, or all:  voxlate recipes --paper {' | '.join(paper_names())}"
    else:
        from voxlate.commands.api.explain import explain
        from voxlate.training.recipe import read, text

        yield text.text_of(name) + "\n" + explain(read(name, allow_code=allow_code))


@Command(
    """
    recipes t1_to_t2_brain
    recipes --paper mrdpm
    recipes --cohort PREPARED
    """,
    lines=_recipe_lines,
    reads={},
)
def recipes(
    name: Annotated[
        str | None,
        Argument(
            "Recipe to print, with the default and the meaning of every key.",
            metavar="NAME",
            complete=NAMES,
        ),
    ] = None,
    *,
    paper: Annotated[
        str | None,
        MainOption(
            "Paper whose recipes are listed: its system, baselines and ablations; all: every recipe.",
            metavar="NAME",
            complete="voxlate.commands.api.training:paper_names",
        ),
    ] = None,
    cohort: Annotated[
        Place | None,
        MainOption(
            "Prepared cohort whose fitting recipes come first; the others state what they need.",
        ),
    ] = None,
    allow_code: AllowCode = False,
) -> list[dict[str, Any]] | dict[str, Any]:
    """List the shipped recipes to start from by source and target, or those of a paper, or print one.
    \f
    Returns:
        list[dict[str, Any]] | dict[str, Any]: Without a `name` or `cohort` a list of tables with the name, title, paper, source and target of each recipe; of a
            `name` the recipe with all its keys; for a `cohort` a list of tables, the fitting recipes first, whose `against`
            states why others do not fit.

    Raises:
        BadInput: the recipe or paper is unknown; it names code without allow_code; or the cohort is not prepared.

    Example:
        >>> import voxlate
        >>> voxlate.recipes("t1_to_t2_brain")["data"]["target"]
        ['t2']
        >>> "phantom_t1_to_ct" in {recipe["name"] for recipe in voxlate.recipes()}
        True
    """
    if cohort is not None:
        from voxlate.training.planning.starters import fits

        return [asdict(fit) for fit in fits(cohort)]
    if name is not None:
        from voxlate.training.recipe import read, to_dict

        return {"name": name, **to_dict(read(name, allow_code=allow_code))}
    from voxlate.training.recipe.text import table_of_recipes

    return table_of_recipes(paper)


def _recipes_in_lines(rows: list[dict[str, Any]]) -> Iterator[Any]:
    """Recipes with a mark on those that have a small variant, which stands on no line of its own."""
    from voxlate.training.recipe.text import SMALL, small_variant

    names = {row["name"] for row in rows}
    shown = [row for row in rows if not row["name"].endswith(SMALL)]
    notes = ["--small" if small_variant(row["name"]) in names else "" for row in shown]
    return _lines_by_modalities(shown, notes)


def _lines_by_modalities(rows: list[dict[str, Any]], notes: list[str]) -> Iterator[Any]:
    """Rows by source and target, such as "t1 → ct", each with its note on a line of the terminal."""
    width, wide = (max(map(len, texts)) for texts in ([row["name"] for row in rows], notes))
    pairs = (
        (f"{' + '.join(row['source'])} → {' + '.join(row['target'])}", (row, note))
        for row, note in zip(rows, notes)
    )
    for pair, own in grouped(pairs).items():
        yield Text(f"\n{pair}", style="bold")
        for row, note in own:
            line = f"  {row['name']:{width}}  {note:{wide}}  {row['title']}"
            yield Text(line, overflow="ellipsis", no_wrap=True) if terminal.is_terminal else line


def _fit_lines(fits: list[dict[str, Any]], data: Path) -> Iterator[str]:
    """The recipes that fit a prepared cohort; then, by reason, the others."""
    fitting = [fit for fit in fits if not fit["against"]]
    yield f"{len(fitting)} of {len(fits)} recipes fit {data}; `voxlate train auto` plans one for it."
    for fit in fitting:
        yield f"  {fit['name']}  {fit['title']}"
    others = grouped((fit["against"], fit["name"]) for fit in fits if fit["against"])
    for reason, names in others.items():
        yield f"\n{reason}:\n  {', '.join(names)}"


def _starter_lines(starters: list[dict[str, Any]], name: str | None, check: bool) -> Iterator[Any]:
    if not starters:
        yield "No starter is installed with this copy of voxlate: train a run (voxlate train auto)."
        return
    notes = [f"{starter['bytes'] / 1e6:.1f} MB, {starter['licence']}" for starter in starters]
    yield from _lines_by_modalities(starters, notes)
    yield ""
    if check:
        yield "Hashes and self-tests are right."
    if name is not None:
        yield from starters[0]["card"]
        return
    of_one_scan = [starter["name"] for starter in starters if len(starter["source"]) == 1]
    yield f"What was measured, and the limits:  voxlate starters {starters[0]['name']}"
    if of_one_scan:  # others need a name for each scan
        yield f"Next:  voxlate synth {of_one_scan[0]} scan.nii.gz --out OUT"
    yield "With pairs of your own, a training can start from the starter that fits:  voxlate train auto --data PREPARED --out RUN"


@Command(
    """
    starters
    starters head-mr-to-ct
    starters --check
    """,
    name="starters",
    lines=_starter_lines,
    reads={},
)
def list_starters(
    name: Annotated[
        str | None,
        Argument(
            "Starter of which all is printed: its training, scans, scores and limits.",
            metavar="NAME",
            complete=RUN.complete,
        ),
    ] = None,
    *,
    check: Annotated[
        bool, MainOption("Check the weights of each starter by its hash and self-test.")
    ] = False,
) -> list[dict[str, Any]]:
    """List the weights that come with voxlate, or print one's card.
    \f
    Returns:
        list[dict[str, Any]]: A table for each starter, or for that of the `name`: name, title, source, target, bytes, licence,
            parameters and card.

    Raises:
        BadInput: no starter has the `name`; or with `check`, a starter whose weights or output differ from its card, or no
            installed starter.

    Example:
        >>> import voxlate
        >>> "starter:head-mr-to-ct" in [starter["name"] for starter in voxlate.list_starters()]
        True
    """
    from voxlate.training.starters.names import FOLDER, PREFIX, folder_of, starter_names

    folders = [folder_of(one) for one in (starter_names() if name is None else [name])]
    if check:
        if not folders:
            raise BadInput(
                f"starters --check: expected an installed starter to check, found none in {FOLDER}. Install a version of voxlate with starters, or leave --check out."
            )
        from voxlate.training.starter import check_starter

        for folder in folders:
            check_starter(folder)
    from voxlate.training.starters.card import read_card  # imports NumPy

    keys = ("title", "source", "target", "accepts", "bytes", "licence", "parameters", "trained_on")
    rows = []
    for folder in folders:
        card = read_card(folder)
        stated = {key: getattr(card, key) for key in keys}
        rows.append({"name": f"{PREFIX}{folder.name}", **stated, "card": card.lines})
    return rows


def _plan_lines(chosen: "Plan", data: Path, out: Path, options: PlanOptions) -> Iterator[Any]:
    yield chosen.table()
    assumed = "" if options.minutes else " 60 minutes are assumed without --minutes."
    yield f"{chosen.prediction}{assumed}"
    place, cohort = quote(str(out)), quote(str(data))
    yield f"{out} is the recipe. Next:  voxlate train {place} --data {cohort} --out RUN"


def _plan_document(chosen: "Plan") -> dict[str, Any]:
    return {"tables": chosen.tables, "rows": chosen.rows, "prediction": chosen.prediction}


@Command(
    """
    plan PREPARED --minutes 20
    plan PREPARED --source t1 --target ct --memory 8GB
    """,
    lines=_plan_lines,
    document=_plan_document,
    reads={"out": None},
    by_line={"out": Path("plan.toml")},
)
def plan(
    data: Annotated[Place, Argument("Prepared cohort.", metavar="PREPARED")],
    *,
    options: PlanOptions,
    out: Annotated[Place | None, MainOption("TOML file of the recipe.")] = None,
    progress: Reporter,
) -> "Plan":
    """Choose a recipe for a prepared cohort, and explain it.

    The plan depends on the cohort, the training time and the memory.
    A few training steps are timed on this machine. Where a starter fits, networks compete for a tenth of the minutes.
    \f
    Returns:
        Plan: The recipe as `tables`, the fact and the reason of each key (`why`, `rows`), the predicted `seconds` and `memory` (bytes), and
            `change` and `save`.

    Raises:
        BadInput: the cohort is not prepared or has no such modality; minutes or memory do not suffice; or `out` exists.

    Example:
        >>> import voxlate
        >>> plan = voxlate.plan("PREPARED", minutes=1, mode="mean", from_scratch=True, progress=False)
        >>> plan.tables["data"]["source"], "net.width" in plan.why
        (['t1'], True)
    """
    from voxlate.training.planning.planner import plan_training

    to = None if out is None else Path(out)
    if to is not None:
        if to.suffix != ".toml" or to.is_dir():
            raise BadInput(
                f"--out: expected the name of a .toml file, found {to}. Write --out plan.toml."
            )
        if to.exists():
            raise BadInput(
                f"{to}: expected a new file, found one that is there. Choose another --out, or remove it."
            )
    chosen = plan_training(data, options, say=progress.say)
    if to is not None:
        chosen.save(to)
    return chosen


def _trained_lines(done: "Trained", options: TrainOptions) -> Iterator[Any]:
    """Weights, the next command, and verdicts of a trained run, the last of `folds`."""
    from voxlate.commands.api.next_steps import after_folds, after_training
    from voxlate.commands.api.trainings import fold_of
    from voxlate.training.log_file import read_verdicts
    from voxlate.training.recipe import from_dict
    from voxlate.training.verdict import colour_lines
    from voxlate.training.weights import read_header

    weights = done.weights()
    recipe = from_dict(read_header(weights)["recipe"], f"{weights}", options.allow_code)
    after = after_training(done.folder, recipe.data, recipe.task.completes)
    if options.folds is not None:
        after = after_folds([fold_of(done.folder.parent, fold) for fold in range(options.folds)])
    by_stage = read_verdicts(done.log)
    final = by_stage.pop("final", [])
    is_worse = any(verdict.outcome == "worse" for verdict in final)
    advice = "Do not use it; to look at what it makes" if is_worse else "Next"
    yield f"{weights} is the model. {advice}:  voxlate {after}"
    for stage, verdict in by_stage.items():
        yield Text.assemble(f"stage '{stage}': ", colour_lines(verdict))
    none = "– no verdict: no validation case has the source and the target modalities"
    yield colour_lines(final) if final else none


def _run_document(done: "Trained") -> dict[str, Any]:
    from voxlate.training.verdict import verdict_lines

    facts = {"run": str(done.folder), "weights": str(done.weights())}
    return {**facts, "verdicts": verdict_lines(done.verdicts)}


@Command(
    """
    train auto --data PREPARED --out RUN --minutes 60
    train t1_to_t2_brain --data PREPARED --out RUN --set train.steps=500
    train RUN --steps +2000
    """,
    lines=_trained_lines,
    document=_run_document,
    keeps="now",
)
def train(
    recipe: Annotated[
        Address
        | Mapping[str, Any]
        | Annotated[Any, Object("voxlate.training.planning.plan:Plan")]
        | Annotated[Any, Object("voxlate.training.recipe.settings:Recipe")],
        Argument(
            "auto (planned for the cohort), the name of a shipped recipe, a TOML file, or a run to continue.",
            metavar="RECIPE",
            complete=NAMES,
        ),
    ],
    data: Annotated[
        Place | None, MainOption("Prepared cohort. For a run only needed if the cohort was moved.")
    ] = None,
    out: Annotated[
        Place | None, MainOption("Output folder. Not needed when continuing a run.")
    ] = None,
    *,
    options: TrainOptions,
    progress: Reporter,
) -> "Trained":
    """Train a recipe, or resume or continue a run.

    The same command resumes a stopped training and ends with the same weights.
    \f
    Returns:
        Run: The folder of the run: its `weights()`, `history` (a pandas DataFrame of losses and validation scores by step),
            and `verdicts`.

    Raises:
        BadInput: the recipe has an unknown key or does not fit the cohort; or the folder has a run of another recipe or cohort.
        Stopped: the training was interrupted, and its state was saved: the same call resumes it.

    Example:
        >>> import voxlate
        >>> small = {"train.steps": 2}
        >>> run = voxlate.train("recipe.toml", "PREPARED", "NEW", set=small, progress=False)
        >>> run = voxlate.train("NEW", "PREPARED", steps="+2", progress=False)  # continues it
        >>> voxlate.info("NEW")["steps"]
        4
    """
    from voxlate.commands.api.trainings import train_or_continue

    return train_or_continue(recipe, data, out, options, progress)


def _model_lines(done: "Trained") -> Iterator[str]:
    yield f"{done.weights()} is the model. Next:  voxlate synth {done.folder} SCANS --out OUT"


@Command(
    """
    adapt RUN --data PREPARED --minutes 5 --out ADAPTED
    adapt starter:head-mr-to-ct --data PREPARED --out ADAPTED
    """,
    lines=_model_lines,
    document=_run_document,
)
def adapt(
    run: Run,
    data: Annotated[Place, MainOption("Prepared cohort of the other site, with a held-out case.")],
    out: Out,
    *,
    options: AdaptOptions,
    progress: Reporter,
) -> "Trained":
    """Continue a run or starter on a few cases of another site.

    The learning rate is lower, and the weights with the least error on held-out cases are kept.
    Calibrate the new run again before its intervals are used.
    \f
    Returns:
        Run: The folder of the adapted run, as `train` returns it.

    Raises:
        BadInput: the cohort has no held-out case or lacks a modality; the model has an autoencoder; or the folder has another
            run.
        Stopped: the training was interrupted, and its state was saved: the same call resumes it.

    Example:
        >>> import voxlate
        >>> adapted = voxlate.adapt("RUN", "PREPARED", "ADAPTED", steps=2, device="cpu", progress=False)
        >>> adapted.weights().name
        'weights.safetensors'
    """
    from voxlate.training.planning.adapt import adapt as adapt_run

    return adapt_run(run, data, out, options, progress=progress.step, say=progress.say)


def _imported_lines(done: "Trained") -> Iterator[str]:
    from voxlate.exchange.pretrained import net_changes
    from voxlate.training.weights import read_header

    weights = done.weights()
    if read_header(weights)["recipe"]["method"]["kind"] != "autoencoding":
        yield from _model_lines(done)
        return
    yield f"{weights} is the autoencoder. Next:"
    yield f"  voxlate train LATENT_RECIPE --data PREPARED --out RUN --reuse {done.folder} {net_changes(done)}"


@Command(
    """
    import xmodality adm.safetensors --out RUN
    import kl-f4 vae.safetensors --out KL
    """,
    name="import",
    lines=_imported_lines,
    document=_run_document,
)
def import_weights(
    source: Annotated[
        Publication,
        Argument(
            "Origin of the weights: xmodality (paper 001), or kl-f4 or kl-f8 for an autoencoder of latent diffusion.",
            metavar="SOURCE",
        ),
    ],
    weights: Annotated[
        Place,
        Argument("Published file (safetensors).", metavar="WEIGHTS"),
    ],
    out: Out,
    *,
    options: ImportOptions,
) -> "Trained":
    """Convert published weights into a run.

    The run is a network that synth accepts, or an autoencoder for `train --reuse`.
    \f
    Returns:
        Run: The folder of the imported run, as `train` returns it, without a history.

    Raises:
        BadInput: the file has weights of another structure, or an option does not fit the source.

    Example:
        >>> import voxlate
        >>> run = voxlate.import_weights("xmodality", "adm.safetensors", "RUN")  # doctest: +SKIP
    """
    from voxlate.exchange.pretrained import Source, import_autoencoder
    from voxlate.exchange.published import import_run

    if source == "xmodality":
        return import_run(Path(weights), Path(out), options.set or {})
    if options.set:
        found = next(iter(options.set))
        raise BadInput(
            f"--set: expected none with {source}, whose file states all keys, found {found!r}. Drop it."
        )
    return import_autoencoder(cast(Source, source), Path(weights), Path(out))


@dataclass(frozen=True)
class Fitted:
    """A calibration: its file and what it states; the compared methods; its sentences; samples of the synthesis."""

    path: Path
    stated: Mapping[str, Any]
    compared: Any
    sentences: list[str]
    samples: int

    @property
    def document(self) -> dict[str, Any]:
        """The calibration as plain values."""
        return {"calibration": str(self.path), **self.stated, "compared": self.compared}


def _fitted_lines(fitted: Fitted, run: Any, options: CalibrateOptions) -> Iterator[str]:
    yield from fitted.sentences
    same = f" --answer {options.answer}" if options.answer else ""
    same += f" --samples {fitted.samples}" if fitted.samples > 1 else ""
    for key, value in (options.set or {}).items():
        same += f" --set {quote(f'{key}={value}')}"
    place = quote(str(options.out or run))
    yield f"{fitted.path}. Next:  voxlate synth {place} NEW --out OUT{same}"


@Command(
    """
    calibrate RUN COHORT --split val --samples 8
    calibrate RUN COHORT --split val --answer mean
    calibrate CV/fold0 COHORT --out-of-fold CV/fold1 --out-of-fold CV/fold2
    synth RUN NEW --out OUT --samples 8
    """,
    lines=_fitted_lines,
    gives="sentences",
)
def calibrate(
    run: Annotated[Address | LoadedModel, RUN],
    cohort: Annotated[
        Place, Argument("Cases with true scans that training did not use.", metavar="COHORT")
    ],
    *,
    options: CalibrateOptions,
    progress: Reporter,
) -> Fitted:
    """Fit prediction intervals and error bounds on held-out patients.

    The calibration is written into RUN (of a starter into --out); synth then writes interval bounds.
    The same command resumes a stopped calibration.
    \f
    Returns:
        list[str]: Sentences on the coverage, the error bounds and the warnings of the calibration, which is in the run's folder.

    Raises:
        BadInput: the run is an autoencoder; cases were in its training, or too few patients are left; coverage is no whole percent; or a
            starter is calibrated without `out`.

    Example:
        >>> import voxlate
        >>> sentences = voxlate.calibrate("RUN", "OTHERS", device="cpu", progress=False)
        >>> voxlate.load("RUN").calibration() is None
        False
    """
    from voxlate.commands.api.images import open_model
    from voxlate.evaluation.calibrate import calibrate as fit_intervals
    from voxlate.evaluation.calibrate import find_calibration_cases, own_copy
    from voxlate.evaluation.intervals.summary import sentences, table
    from voxlate.synthesis.ensemble import Ensemble
    from voxlate.synthesis.model import Model
    from voxlate.training.calibration_file import calibration_file

    new = None if options.out is None or Path(options.out).exists() else Path(options.out)
    try:  # a new copy of a starter is removed where it cannot be calibrated
        if isinstance(run, Model):
            options = replace(options, device=f"{run.device}")
        else:
            run = own_copy(run, options.out)
        models = [open_model(one, options) for one in (run, *options.out_of_fold)]
        model = Ensemble([member for one in models for member in one.members])
        keys = {"samples": options.samples, **(options.set or {})}
        model = model.with_options(options.allow_code, **keys)
        cases = find_calibration_cases(model, Path(cohort), options, progress.say)
        fitted = fit_intervals(model, cases, options, progress=progress.step, warn=progress.say)
    except (BadInput, OSError):
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)
        raise
    header, samples = fitted.header, model.facts.synth.samples
    path = calibration_file(models[0])
    return Fitted(path, fitted.entry, table(header), sentences(header), samples)
