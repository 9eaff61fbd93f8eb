"""Commands that train: recipes, plan, train, import, starters, adapt, calibrate."""

import json
import shlex
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.text import Text
from typer import Argument

from voxlate.base.errors import BadInput
from voxlate.base.groups import grouped
from voxlate.base.options.option import MAIN, AllowCode, Option
from voxlate.commands.api.console import err, note, out, say
from voxlate.commands.cli.messages import Verbose, keep_messages, note_briefly
from voxlate.commands.cli.options import Json, Run, To, command
from voxlate.evaluation.options.calibrate import CalibrateOptions
from voxlate.training.options import AdaptOptions, ImportOptions, PlanOptions, TrainOptions

AUTO = "auto"
# Reasons of a plan that are printed without --verbose.
DECISIONS = (
    "data.source",
    "start_from",
    "stages",
    "method",
    "net.width",
    "train.steps",
    "minutes",
    "by hand",
)
RANKED = "Methods for pairs come first on paired scans, then recipes whose patches are filled, which train on more cases, use more modalities, are the systems of a paper or of voxlate, and have measured results; then those that are quicker. The scores that a recipe reaches on the cohort are not predicted.\n"


def _complete_recipe(begun: str) -> list[str]:
    from voxlate.training.recipe.text import names

    return [name for name in (AUTO, *names()) if name.startswith(begun)]


@command("recipes t1_to_t2_brain", "recipes --for PREPARED", name="recipes")
def list_recipes(
    name: Annotated[
        str | None,
        Argument(
            metavar="NAME",
            help="Recipe to print, with the default and the meaning of every key.",
            autocompletion=_complete_recipe,
        ),
    ] = None,
    cohort: Annotated[
        Path | None,
        Option(
            "Prepared cohort for which recipes are ranked, or refused with a reason.",
            flag="--for",
            panel=MAIN,
        ),
    ] = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """List the shipped recipes by source and target, or print one."""
    from voxlate.commands.api.catalogue import explain_recipe, recipes, recipes_by_modalities

    if as_json:
        print(json.dumps(recipes(name, cohort=cohort, allow_code=allow_code)))
    elif cohort is not None:
        _show_fits(recipes(cohort=cohort), cohort)
    elif name:
        print(explain_recipe(name, allow_code))
    else:
        _show_recipes(recipes_by_modalities())


def _show_recipes(by_modalities: dict[str, list[dict[str, Any]]]) -> None:
    """List recipes, each on a line of the terminal."""
    cut: Any = {"no_wrap": True, "overflow": "ellipsis"} if out.is_terminal else {"soft_wrap": True}
    width = max(len(row["name"]) for row in chain.from_iterable(by_modalities.values()))
    for pair, rows in by_modalities.items():
        say(f"\n{pair}", style="bold")
        for row in rows:
            small = "--small" if row["small"] else ""
            line = f"  {row['name']:{width}}  {small:7}  {row['title']}"
            out.print(line, highlight=False, **cut)


def _show_fits(fits: list[dict[str, Any]], data: Path) -> None:
    """List the recipes that fit a prepared cohort, with their peculiarities; then, by reason, the others."""
    fitting = [fit for fit in fits if not fit["against"]]
    say(
        f"{len(fitting)} of {len(fits)} recipes and starters fit {data}; `voxlate train auto` plans one for it."
    )
    if fitting:
        say(RANKED)
    for number, fit in enumerate(fitting, start=1):
        say(f"  {number}. {fit['name']}  {fit['title']}\n      {fit['why']}")
        for sentence in fit["notes"]:
            say(f"      {sentence}")
    others = grouped((fit["against"], fit["name"]) for fit in fits if fit["against"])
    for reason, names in others.items():
        say(f"\n{reason}:\n  {', '.join(names)}")


@command("plan PREPARED --minutes 20", "plan PREPARED --source t1 --target ct --memory 8GB")
def plan(
    data: Annotated[Path, Argument(metavar="PREPARED", help="Prepared cohort.")],
    options: PlanOptions,
    to: Annotated[Path, Option("TOML file of the recipe.", flag="--out", panel=MAIN)] = Path(
        "plan.toml"
    ),
) -> None:
    """Choose a recipe for a prepared cohort, and explain it.

    The plan depends on the cohort, the training time and the memory.
    A few training steps are timed on this machine.
    """
    if to.suffix != ".toml" or to.is_dir():
        raise BadInput(
            f"--out: expected the name of a .toml file, found {to}. Write --out plan.toml."
        )
    if to.exists():
        raise BadInput(
            f"{to}: expected a new file, found one that is there. Choose another --out, or remove it."
        )
    from voxlate.commands.api.progress import Reporter
    from voxlate.commands.api.training import plan as run

    chosen = run(data, options, progress=Reporter(say=note_briefly))
    chosen.save(to)
    for key, why in chosen.why.items():
        say(f"{key}: {why}.")
    assumed = "" if options.minutes else " 60 minutes are assumed without --minutes."
    say(f"{chosen.prediction}{assumed}")
    say(
        f"{to} is the recipe. Next:  voxlate train {shlex.quote(str(to))} --data {shlex.quote(str(data))} --out RUN"
    )


@command(
    "train auto --data PREPARED --out RUN --minutes 60",
    "train t1_to_t2_brain --data PREPARED --out RUN --set train.steps=500",
    "train RUN --steps +2000",
)
def train(
    recipe: Annotated[
        str,
        Argument(
            metavar="RECIPE",
            help="auto (planned for the cohort), the name of a shipped recipe, a TOML file, or a run to continue.",
            autocompletion=_complete_recipe,
        ),
    ],
    options: TrainOptions,
    data: Annotated[
        Path | None,
        Option("Prepared cohort. For a run only needed if the cohort was moved.", panel=MAIN),
    ] = None,
    to: Annotated[
        Path | None,
        Option("Output folder. Not needed when continuing a run.", flag="--out", panel=MAIN),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Train a recipe, or resume or continue a run.

    The same command resumes a stopped training and ends with the same weights.
    """
    from voxlate.commands.api.progress import Reporter
    from voxlate.commands.api.training import describe_trained
    from voxlate.commands.api.training import train as run

    def show_plan(why: Mapping[str, str], place: Path) -> None:
        """Print the decisions of a plan, or all of its keys, with their reasons."""
        shown = {key: why[key] for key in why if verbose or key in DECISIONS}
        say(f"Plan (every key and its reason: {place}):", err)
        for key, reason in shown.items():
            say(f"  {key:{max(map(len, shown))}}  {reason}", err)

    with keep_messages(to or Path(recipe), "train", verbose, wait=False) as take:
        reporter = Reporter(say=take, plan=show_plan)
        done = run(recipe, data, to, options, progress=reporter)
    for line in describe_trained(done, options.allow_code, options.folds):
        say(line)


@command(
    "import xmodality adm.safetensors --out RUN",
    "import kl-f4 vae.safetensors --out KL",
    "import diffusers FOLDER --recipe stated.toml --spacing 1 1 1 --out RUN",
    name="import",
)
def import_weights(
    source: Annotated[
        Literal["xmodality", "kl-f4", "kl-f8", "diffusers", "monai", "nnunet", "konfai", "pix2pix"],
        Argument(
            metavar="SOURCE",
            help="Origin of the weights: xmodality; kl-f4 or kl-f8 for an autoencoder of latent diffusion; or a package: diffusers, monai, nnunet, konfai, pix2pix.",
        ),
    ],
    weights: Annotated[
        Path,
        Argument(
            metavar="WEIGHTS",
            help="Published file (safetensors), or a package's own file or folder.",
        ),
    ],
    to: To,
    options: ImportOptions,
) -> None:
    """Convert published weights into a run.

    The run is a network that synth accepts, or an autoencoder for `train --reuse`.
    """
    from voxlate.commands.api.training import describe_imported
    from voxlate.commands.api.training import import_weights as run

    for line in describe_imported(run(source, weights, to, options)):
        say(line)


@command("starters", "starters --check", name="starters")
def list_starters(
    check: Annotated[
        bool, Option("Check the weights of each starter by its hash and self-test.", panel=MAIN)
    ] = False,
    as_json: Json = False,
) -> None:
    """List the weights that come with voxlate, with what was measured."""
    from voxlate.commands.api.catalogue import list_starters as run

    starters = run(check)
    if as_json:
        print(json.dumps(starters))
        return
    if not starters:
        say("No starter is installed with this copy of voxlate: train a run (voxlate train auto).")
        return
    state = "  hash and self-test are right" if check else ""
    for starter in starters:
        head = (starter["name"], "bold"), f"  {starter['title']}{state}"
        out.print(Text.assemble(*head), soft_wrap=True)
        say(
            f"  {' + '.join(starter['source'])} to {' + '.join(starter['target'])}, {starter['bytes'] / 1e6:.1f} MB, {starter['parameters'] / 1e6:.2g} million weights"
        )
        for line in starter["card"]:
            say(f"  {line}")
    of_one_scan = [starter["name"] for starter in starters if len(starter["source"]) == 1]
    if of_one_scan:  # others need a name for each scan
        say(f"\nNext:  voxlate synth {of_one_scan[0]} scan.nii.gz --out OUT")
    say(
        "With pairs of your own, a training can start from the starter that fits:  voxlate train auto --data PREPARED --out RUN"
    )


@command(
    "adapt RUN --data PREPARED --minutes 5 --out ADAPTED",
    "adapt starter:head-mr-to-ct --data PREPARED --out ADAPTED",
)
def adapt(
    run: Run,
    data: Annotated[
        Path, Option("Prepared cohort of the other site, with a held-out case.", panel=MAIN)
    ],
    to: To,
    options: AdaptOptions,
) -> None:
    """Continue a run or starter on a few cases of another site.

    The learning rate is lower, and the weights with the least error on held-out cases are kept.
    Calibrate the new run again before its intervals are used.
    """
    from voxlate.commands.api.progress import Reporter
    from voxlate.commands.api.training import adapt as continue_on

    done = continue_on(run, data, to, options, progress=Reporter(say=note))
    say(f"{done.weights()} is the model. Next:  voxlate synth {to} SCANS --out OUT")


@command(
    "calibrate RUN COHORT --split val --samples 8",
    "calibrate RUN COHORT --split val --answer mean",
    "synth RUN NEW --out OUT --samples 8",
)
def calibrate(
    run: Run,
    cohort: Annotated[
        Path, Argument(metavar="COHORT", help="Cases with true scans that training did not use.")
    ],
    options: CalibrateOptions,
    as_json: Json = False,
) -> None:
    """Fit prediction intervals and error bounds on held-out patients.

    The calibration is written into RUN (of a starter into --out); synth then writes interval bounds.
    The same command resumes a stopped calibration.
    """
    from voxlate.commands.api.progress import Reporter
    from voxlate.commands.api.training import fit_calibration

    fitted = fit_calibration(run, cohort, options, Reporter(say=note))
    if as_json:
        facts = {"calibration": str(fitted.path), **fitted.stated, "compared": fitted.compared}
        print(json.dumps(facts))
        return
    for line in fitted.sentences:
        say(line)
    same = f" --answer {options.answer}" if options.answer else ""
    same += f" --samples {fitted.samples}" if fitted.samples > 1 else ""
    for key, value in (options.synth or {}).items():
        same += f" --set {shlex.quote(f'{key}={value}')}"
    place = shlex.quote(str(options.out or run))
    say(f"{fitted.path}. Next:  voxlate synth {place} NEW --out OUT{same}")
