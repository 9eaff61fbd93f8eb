"""Resuming a run by its folder alone."""

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
from voxlate.training.recipe.run_provenance import stated_place
from voxlate.training.recipe.text import first_change, stored_recipe, values_of
from voxlate.training.run import Run
from voxlate.training.train import Beginning, train
from voxlate.training.weights import read_header


def resume_run(
    folder: Path | str,
    *,
    data: Path | None = None,
    device: str = "auto",
    allow_code: bool = False,
    track: Literal["mlflow", "wandb"] | None = None,
    progress: StepCallback = no_report,
    say: Say = lambda _: None,
) -> Run:
    """Train a stopped run to its end; a finished one is left as it is.

    data: the prepared cohort, if it was moved; allow_code: import the code outside voxlate that the run names. Raises
    BadInput if the folder is no run, if the cohort differs, or if the state is absent.
    """
    run = Run(Path(folder))
    accelerator, _ = processes(device)

    def begin() -> Recipe:
        """The recipe by which the run continues."""
        if not run.provenance.is_file():
            raise BadInput(
                f"{run.folder}: expected a run to continue, found no provenance.json in it. To train a new one, give a recipe, --data PREPARED and --out RUN."
            )
        with lock(run.folder):
            recipe = _open_recipe(run, data, allow_code)
            if run.weights().exists():
                steps = read_header(run.weights())["steps"]
                text = f"{run.folder} is finished, with {steps} steps. To train on from its weights: voxlate train {run.recipe} --data PREPARED --init {run.folder} --out NEW."
                say(message("finished", text))
                return recipe
            _check_state(run)
            text = f"resuming {run.folder}, which stopped before step {recipe.train.steps}."
            say(message("resumed", text))
            return recipe

    recipe = by_main(accelerator, begin)
    stated = run.origin
    return train(
        recipe,
        stated_place(run.folder, stated["prepared"]),
        run.folder,
        beginning=Beginning(begun=stated["data"].get("start")),
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
        if stated_there != recipe:
            raise BadInput(
                f"{path}: expected the recipe that this run began with, found an edited one. Restore it, or train the edited recipe into another --out."
            )
    prepared = relative_to(run.folder, place.resolve())
    if stated.get("prepared") != prepared:
        write_json(run.provenance, {**stated, "prepared": prepared})
    return recipe


def _check_state(run: Run) -> None:
    """Raise BadInput if a run cannot continue, because the state of its last stage is absent and its weights are no random ones."""
    begun = run.state.exists() and load_state(run.state)["stage"] == "final"
    if not begun and run.origin["data"].get("start"):
        raise BadInput(
            f"{run.state}: expected the state of this run's last stage, with the optimiser's moments, found none. Restore it, give the whole command that began the run, or begin a new run from its weights with --init {run.folder}."
        )
