"""Continuing a run by its folder alone: more steps of a finished run, or resuming a stopped one."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from voxlate.base.errors import BadInput
from voxlate.base.executors.case_work import StepCallback, no_report
from voxlate.base.files import lock, relative_to, write_json
from voxlate.base.messages import Say, message
from voxlate.scans.cases.prepared import open_cohort
from voxlate.training.learner import load_state
from voxlate.training.processes import by_main, processes
from voxlate.training.recipe import Recipe, from_dict, to_dict, with_tables
from voxlate.training.recipe.reading import check
from voxlate.training.recipe.run_provenance import stated_place
from voxlate.training.recipe.text import first_change, stored_recipe, values_of
from voxlate.training.run import Run, software
from voxlate.training.train import Beginning, train
from voxlate.training.weights import is_finished, read_header


def train_further(
    folder: Path | str,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    data: Path | None = None,
    device: str = "auto",
    allow_code: bool = False,
    track: Literal["mlflow", "wandb"] | None = None,
    progress: StepCallback = no_report,
    say: Say = lambda _: None,
) -> Run:
    """Train the last stage of a finished run for additional steps; without steps and minutes, resume the run.

    The additional steps have a warm-up and decay of their own (`train.more`). They start from the run's weights, their
    average and the optimiser's moments; the previous weights stay until the new ones are complete. minutes: converted
    to steps by the speed of the run; data: the prepared cohort, if it was moved; allow_code: import the code outside
    voxlate that the run names. The same call resumes a stopped continuation. Raises BadInput if the folder is no run,
    if the cohort differs, or if the state is absent.
    """
    run = Run(Path(folder))
    accelerator, _ = processes(device)

    def begin() -> Recipe:
        """The recipe by which the run continues; that of additional steps is written to the run."""
        if not run.provenance.is_file():
            raise BadInput(
                f"{run.folder}: expected a run to continue, found no provenance.json in it. To train a new one, give a recipe, --data PREPARED and --out RUN."
            )
        with lock(run.folder):
            recipe = _open_recipe(run, data, allow_code)
            asked = f"--steps +{steps}" if steps else f"--minutes +{minutes:g}" if minutes else ""
            finished = is_finished(run.weights(), recipe.train.more)
            if finished and not asked:
                done = read_header(run.weights())["steps"]
                text = f"{run.folder} is finished, with {done} steps; --steps +{recipe.train.steps} continues it."
                say(message("finished", text))
                return recipe
            _check_state(run)
            if finished:
                return _add_steps(run, recipe, asked, steps, minutes or 0, say)
            before = [one["asked"] for one in run.origin.get("continuations", [])]
            if asked and before[-1:] != [asked]:
                raise BadInput(
                    f"{run.folder}: expected a finished run for {asked}, found one that stopped before its last step. Resume it first: voxlate train {run.folder}"
                )
            text = f"resuming {run.folder}, which stopped before step {recipe.train.length}."
            say(message("resumed", text))
            return recipe

    recipe = by_main(accelerator, begin)
    stated = run.origin
    replayed = stated.get("replayed")
    beginning = Beginning(
        begun=stated["data"].get("start"),
        replay=None if replayed is None else stated_place(run.folder, replayed),
    )
    return train(
        recipe,
        stated_place(run.folder, stated["prepared"]),
        run.folder,
        beginning=beginning,
        fold=stated["data"].get("fold"),
        device=device,
        track=track,
        progress=progress,
        say=say,
    )


def training_cohort(run: Run) -> Path | None:
    """The prepared cohort that a run was trained on; None if it is not there any more, or has changed."""
    if not run.provenance.is_file():
        return None
    stated = run.origin
    place = stated_place(run.folder, stated.get("prepared", ""))
    if "prepared" not in stated or not (place / "cohort.json").is_file():
        return None
    return place if open_cohort(place).digest == stated["data"].get("cohort") else None


def _open_recipe(run: Run, data: Path | None, allow_code: bool) -> Recipe:
    """The recipe of a run whose cohort is there; the place of a cohort that was moved is written to the provenance."""
    stated = run.origin
    if "cohort" not in stated["data"]:
        raise BadInput(
            f"{run.folder}: expected a run that voxlate trained, found none. Train a new one."
        )
    place = stated_place(run.folder, stated.get("prepared", "")) if data is None else data.resolve()
    if not (place / "cohort.json").is_file():
        raise BadInput(
            f"{run.folder}: expected its prepared cohort in {place}, found none. Give its place with --data."
        )
    if open_cohort(place).digest != stated["data"]["cohort"]:
        raise BadInput(
            f"{place}: expected the prepared cohort that {run.folder} was trained on, found other scans or another cohort.json. Give that cohort with --data."
        )
    recipe = from_dict(stated["recipe"], f"{run.provenance}", allow_code)
    if change := first_change(stated["recipe"], to_dict(recipe)):
        raise BadInput(
            f"{run.folder}: expected a run of this version of voxlate, found another ({change}). Train anew."
        )
    if run.recipe.exists():
        path = f"{run.recipe}"
        stated_there = with_tables(recipe, stored_recipe(values_of(path)), path)
        if _without_more(stated_there) != _without_more(recipe):
            raise BadInput(
                f"{path}: expected the recipe that this run began with, found an edited one. Restore it, or train the edited recipe into another --out."
            )
    prepared = relative_to(run.folder, place.resolve())
    if stated.get("prepared") != prepared:
        write_json(run.provenance, {**stated, "prepared": prepared})
    return recipe


def _without_more(recipe: Recipe) -> Recipe:
    """The recipe as it began, before steps were added."""
    return replace(recipe, train=replace(recipe.train, more=None))


def _add_steps(
    run: Run, recipe: Recipe, asked: str, steps: int | None, minutes: float, say: Say
) -> Recipe:
    """The recipe of a finished run with additional steps, or those that fit in minutes; it is written to the run."""
    header = read_header(run.weights())
    done = header["steps"]
    if not steps:
        each = header["seconds"] / done
        steps = max(1, round(60 * minutes / each))
        text = f"{minutes:g} minutes are about {steps} steps of {each:.3g} s, which they took in this run so far."
        say(message("steps", text, steps=steps))
    recipe = replace(recipe, train=replace(recipe.train, more=(*(recipe.train.more or ()), steps)))
    check(recipe, f"{run.provenance}")
    versions = {name: software()[name] for name in ("voxlate", "torch")}
    record = {"asked": asked, "from_step": done, "steps": steps, **versions}
    stated = run.origin
    continuations = [*stated.get("continuations", []), record]
    changed = {"recipe": to_dict(recipe), "continuations": continuations}
    write_json(run.provenance, stated | changed)
    return recipe


def _check_state(run: Run) -> None:
    """Raise BadInput if a run cannot continue, because the state of its last stage is absent and its weights are no random ones."""
    begun = run.state.exists() and load_state(run.state)["stage"] == "final"
    if not begun and (run.weights().exists() or run.origin["data"].get("start")):
        raise BadInput(
            f"{run.state}: expected the state of this run's last stage, with the optimiser's moments, found none. Restore it, give the whole command that began the run, or begin a new run from its weights with --init {run.folder}."
        )
