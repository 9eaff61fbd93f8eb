"""Commands on models: recipes, train, import, synth."""

import json
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.text import Text
from typer import Argument

from voxlate.cli.app import end, err, note, out, say
from voxlate.cli.messages import Verbose, keep_messages
from voxlate.cli.options import Changes, Json, To, command
from voxlate.cli.planning import (
    AUTO,
    FromScratch,
    Memory,
    Mode,
    PlanFor,
    Source,
    Target,
    auto_recipe,
    given,
    minutes_of,
    show_fits,
    write_planned,
)
from voxlate.cli.progress import progress_on
from voxlate.executors.choose import choose_executor
from voxlate.options.executors import ExecutorOptions
from voxlate.options.option import MAIN, TRAINING, AllowCode, Device, Option, pairs
from voxlate.options.synthesise import SynthOptions
from voxlate.recipe import text as recipe_text
from voxlate.starters.names import complete_starter
from voxlate.system.errors import BadInput, plural
from voxlate.system.messages import message

if TYPE_CHECKING:
    from voxlate.training.run import Run


def _completed(begun: str) -> list[str]:
    return [name for name in (AUTO, *recipe_text.names()) if name.startswith(begun)]


@command("recipes t1_to_t2_brain", "recipes --for PREPARED", name="recipes")
def list_recipes(
    name: Annotated[
        str | None,
        Argument(
            metavar="NAME",
            help="Recipe to print, with the default and the meaning of every key.",
            autocompletion=_completed,
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
    if cohort is not None:
        show_fits(cohort, as_json)
        return
    if name:
        from voxlate import recipe as recipes
        from voxlate.cli.explain import explain

        chosen = recipes.read(name, allow_code=allow_code)
        values = {"name": name, **recipes.to_dict(chosen)}
        print(json.dumps(values) if as_json else recipe_text.text_of(name) + "\n" + explain(chosen))
        return
    if as_json:
        print(json.dumps(recipe_text.table_of_recipes()))
        return
    rows = recipe_text.table_of_recipes()
    listed = {row["name"] for row in rows}
    width = max(len(name) for name in listed)
    cut: Any = {"no_wrap": True, "overflow": "ellipsis"} if out.is_terminal else {"soft_wrap": True}
    by_modalities = defaultdict[str, list[str]](list)
    for row in rows:
        name = row["name"]
        if name.removesuffix(recipe_text.SMALL) != name:
            continue
        small = "--small" if recipe_text.small_variant(name) in listed else ""
        pair = f"{' + '.join(row['source'])} → {' + '.join(row['target'])}"
        by_modalities[pair].append(f"  {name:{width}}  {small:7}  {row['title']}")
    for pair, lines in by_modalities.items():
        say(f"\n{pair}", style="bold")
        for line in lines:
            out.print(line, highlight=False, **cut)


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
            autocompletion=_completed,
        ),
    ],
    data: Annotated[
        Path | None,
        Option("Prepared cohort. For a run only needed if the cohort was moved.", panel=MAIN),
    ] = None,
    to: Annotated[
        Path | None,
        Option("Output folder. Not needed when continuing a run.", flag="--out", panel=MAIN),
    ] = None,
    minutes: Annotated[
        str | None,
        Option(
            "Training time of auto (default: 60), or additional time of a finished run (+30).",
            panel=MAIN,
        ),
    ] = None,
    steps: Annotated[
        str | None, Option("Additional steps of a finished run (+2000).", panel=MAIN)
    ] = None,
    small: Annotated[
        bool,
        Option(
            "Train the small variant of the recipe, which its table [small] states.", panel=MAIN
        ),
    ] = False,
    change: Changes = None,
    start: Annotated[
        Path | None,
        Option(
            "Run, weights or starter:NAME from which the network is initialised.",
            flag="--init",
            panel=TRAINING,
            complete="voxlate.starters.names:named",
        ),
    ] = None,
    reuse: Annotated[
        list[Path] | None,
        Option(
            "Run whose earlier stages are reused if they are identical. Repeatable.", panel=TRAINING
        ),
    ] = None,
    fold: Annotated[
        int | None,
        Option(
            "Fifth of the patients that validates; the others train, except the test patients.",
            panel=TRAINING,
            least=0,
            most=4,
        ),
    ] = None,
    memory: Memory = None,
    mode: Mode = None,
    source: Source = None,
    target: Target = None,
    from_scratch: FromScratch = False,
    plan_for: PlanFor = None,
    device: Device = "auto",
    allow_code: AllowCode = False,
    verbose: Verbose = False,
) -> None:
    """Train a recipe, or resume or continue a run.

    The same command resumes a stopped training and ends with the same weights.
    """
    from voxlate.cli import resume
    from voxlate.planning.pace import kept_pace
    from voxlate.recipe import read_with_head
    from voxlate.training.train import train as run

    lengths = {"--steps": steps, "--minutes": minutes}
    of_plan = given(
        source=source,
        target=target,
        memory=memory,
        mode=mode,
        plan_for=plan_for,
        from_scratch=from_scratch or None,
    )
    if to is None and Path(recipe).is_dir():
        unfit = [
            f"--{name}"
            for name in given(
                set=change, init=start, reuse=reuse, fold=fold, small=small or None, **of_plan
            )
        ]
        unfit = [name.replace("_", "-") for name in unfit]
        options: dict[str, Any] = {"data": data, "device": device, "allow_code": allow_code}
        with (
            keep_messages(Path(recipe), "train", verbose, wait=False) as say_one,
            progress_on(err) as bars,
        ):
            resume.go_on(Path(recipe), lengths, unfit, **options, progress=bars, say=say_one)
        _say_next(Path(recipe), allow_code)
        return
    data, to = resume.required(recipe, data, to, {"--steps": steps} if recipe == AUTO else lengths)
    changes = pairs(change)
    new_plan = None
    began = time.monotonic()
    if small:
        if recipe == AUTO:
            raise BadInput(
                "--small: expected a recipe with a table [small], found auto, which is planned. Drop it."
            )
        recipe = recipe_text.small_variant(recipe)
    if recipe == AUTO:
        if minutes is not None:
            of_plan["minutes"] = minutes_of(minutes)
        by: dict[str, Any] = {"device": device, "fold": fold, "allow_code": allow_code}
        if plan_for is not None:
            write_planned(data, to, changes, of_plan, **by)
            return
        chosen, head, new_plan = auto_recipe(data, to, changes, of_plan, verbose, **by)
    elif of_plan:
        option = next(iter(of_plan)).replace("_", "-")
        raise BadInput(
            f"--{option}: expected the recipe auto, which is planned, found {recipe}. Drop it."
        )
    else:
        chosen, head = read_with_head(recipe, changes, allow_code)
    own = sorted({key.split(".")[0] for key in changes} & {"train", "net", "method", "opponent"})
    if own and chosen.stages and (recipe != AUTO or new_plan is not None):
        others = ", ".join(f"stages.{stage.name}.{own[0]}" for stage in chosen.stages)
        note(f"--set {own[0]}… changes the last stage alone; the others are {others}.")
    with (
        keep_messages(to, "train", verbose, wait=False) as say_one,
        progress_on(err) as bars,
    ):
        pace = kept_pace(to, chosen, say_one) if recipe == AUTO else None
        options = {
            "pace": pace,
            "start": start,
            "reuse": reuse or (),
            "fold": fold,
            "device": device,
        }
        done = run(chosen, data, to, head=head, **options, progress=bars, say=say_one)
    if new_plan is not None:
        note(new_plan.outcome(done, time.monotonic() - began, device))
    _say_next(to, allow_code)
    if new_plan is not None and any(one.outcome == "worse" for one in done.verdicts):
        note(new_plan.help(done))


def _say_next(run: Path, allow_code: bool) -> None:
    """Name a finished run's weights, and the command that synthesises images of held-out cases."""
    from voxlate import recipe as recipes
    from voxlate.cli.next_steps import after_training
    from voxlate.training.run import Run
    from voxlate.training.weights import read_header

    weights = Run(run).weights()
    recipe = recipes.from_dict(read_header(weights)["recipe"], f"{weights}", allow_code)
    after = after_training(run, recipe.data, recipe.task.completes)
    say(f"{weights} is the model. Next:  voxlate {after}")
    _say_verdicts(Run(run))


def _say_verdicts(run: "Run") -> None:
    """Say whether each stage of a run is better than naive baselines on its validation items, the model last."""
    from voxlate.scoring.verdict import colour_lines, read_verdicts

    by_stage = read_verdicts(run.log)
    for stage, verdict in by_stage.items():
        if stage != "final":
            say(Text.assemble(f"stage '{stage}': ", colour_lines(verdict)))
    if final := by_stage.get("final"):
        say(colour_lines(final))
    else:
        say("– no verdict: no validation case has the source and the target modalities")


@command(
    "import xmodality adm.safetensors --out RUN",
    "import kl-f4 vae.safetensors --out KL",
    name="import",
)
def import_weights(
    source: Annotated[
        Literal["xmodality", "kl-f4", "kl-f8"],
        Argument(
            metavar="SOURCE",
            help="Origin of the weights: xmodality, or kl-f4 or kl-f8 for an autoencoder of latent diffusion.",
        ),
    ],
    weights: Annotated[Path, Argument(metavar="WEIGHTS", help="Published file (safetensors).")],
    to: To,
    change: Changes = None,
) -> None:
    """Convert published weights into a run.

    The run is a network that synth accepts, or an autoencoder for `train --reuse`.
    """
    if source != "xmodality":
        from voxlate.training.pretrained import import_autoencoder, net_changes

        if change:
            raise BadInput(
                f"--set: expected none with {source}, whose file states all keys, found {change[0]!r}. Drop it."
            )
        taken = import_autoencoder(source, weights, to)
        say(f"{taken.weights()} is the autoencoder. Next:")
        say(
            f"  voxlate train LATENT_RECIPE --data PREPARED --out RUN --reuse {to} {net_changes(taken)}"
        )
        return
    from voxlate.training.published import import_run

    run = import_run(weights, to, pairs(change))
    say(f"{run.weights()} is the model. Next:  voxlate synth {to} SCANS --out OUT")


@command(
    "synth RUN COHORT --out OUT --split val",
    "synth RUN t1=scan.nii.gz --out OUT --samples 10",
    "synth RUN COHORT --out MEANS --answer mean",
    "synth FOLD0 FOLD1 FOLD2 COHORT --out OUT",
)
def synth(
    run: Annotated[
        Path,
        Argument(
            metavar="RUN",
            help="Run folder, weights file or starter:NAME.",
            autocompletion=complete_starter,
        ),
    ],
    inputs: Annotated[
        list[str],
        Argument(
            metavar="[RUN...] INPUT",
            help="Cohort, case, DICOM series, file or modality=path pairs; several runs give their mean.",
        ),
    ],
    to: To,
    *,
    options: SynthOptions,
    by: ExecutorOptions,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Synthesise the target modalities of a case or a cohort.

    The images are in physical units on the grid of the input.
    """
    from voxlate.cli.next_steps import after_completing, after_synthesis
    from voxlate.delivery.archive import fetch_inputs, store_answers
    from voxlate.delivery.delivery import deliver
    from voxlate.synthesis.cohort import warnings_in
    from voxlate.synthesis.ensemble import members_and_scans
    from voxlate.synthesis.selection import select
    from voxlate.trust.bounds import bound_lines, bounds_of

    members, inputs = members_and_scans(inputs)
    fetched = fetch_inputs(inputs, to, options)
    inputs = fetched.inputs
    selected = select([run, *members], inputs, options)
    if not selected.scans and not as_json:
        say(
            f"--part {options.part} holds none of the {len(selected.others or ())} cases: nothing to do."
        )
        return
    with keep_messages(to, "synth", verbose) as say_one, progress_on(err) as bars:
        executor = choose_executor(by, options.device, say_one)
        folders, failed = deliver(
            selected, to, options, progress=bars, say=say_one, executor=executor
        )
        if options.store:
            say_one(message("stored", store_answers(fetched, folders, say_one)))
    left_out = {**selected.lacking, **failed}
    complete = selected.complete
    if as_json:
        facts = {
            "out": str(to),
            "cases": [folder.name for folder in folders],
            "targets": selected.model.recipe.data.target,
            "left_out": left_out,
            "complete": complete,
            "bounds": bounds_of(folders),
            "warnings": {
                folder.name: [one.stated for one in said]
                for folder in folders
                if (said := warnings_in(folder))
            },
        }
        print(json.dumps(facts))
    else:
        for line in bound_lines(folders):
            say(line)
        with_truth = {scans.case for scans in selected.scans if scans.truths} & {
            folder.name for folder in folders
        }
        can_score = bool(with_truth) and options.pseudonymise is None  # scores need the names
        after = after_synthesis(to, inputs[0], options.layout, can_score)
        if complete:
            say(
                f"{len(complete)} cases lack no modality and are not synthesised: {', '.join(complete)}"
            )
        say(
            f"{plural(len(folders), 'case')} in {to}.{f' Next:  voxlate {after}' if folders else ''}"
        )
        if (
            complete and folders and options.pseudonymise is None
        ):  # the synthesised modalities have no true scan, but these cases have one
            command_line = after_completing(run, inputs[0], options.layout, options.split)
            say(f"To score the model on complete cases:  voxlate {command_line}")
    end(f"left out {sentence}" for sentence in left_out.values())
