"""Continuing a run by its folder alone: more steps of a finished run, or resuming a stopped one."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from voxlate.cases.prepared import open_cohort
from voxlate.recipe import Recipe, from_dict, header, to_dict, with_tables
from voxlate.scoring.provenance import read_run
from voxlate.system.errors import BadInput
from voxlate.system.files import lock, relative_to, write_json, write_text
from voxlate.system.messages import Say, message
from voxlate.training.changes import first_change
from voxlate.training.log import StepCallback
from voxlate.training.processes import by_main, processes
from voxlate.training.run import Run, check_recipe_file, software
from voxlate.training.state_file import load_state
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
    progress: StepCallback = lambda *_: None,
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

    def read_recipe(stated: dict[str, Any]) -> Recipe:
        return from_dict(stated["recipe"], f"{run.provenance}", allow_code)

    def open_run() -> None:
        if not run.provenance.is_file():
            raise BadInput(
                f"{run.folder}: expected a run to continue, found no provenance.json in it. To train a new one, give a recipe, --data PREPARED and --out RUN."
            )
        with lock(run.folder):
            stated = read_run(run.provenance)
            if not stated.get("recipe") or not stated.get("data", {}).get("cohort"):
                raise BadInput(
                    f"{run.folder}: expected a run that voxlate trained, found none. Train a new one."
                )
            place = (data or _prepared_folder(run, stated)).resolve()
            moved = {**stated, "prepared": relative_to(run.folder, place)}
            _check_cohort(run, moved)
            continuation = _Continuation(run, read_recipe(stated), moved, steps, minutes, say)
            wanted = continuation.provenance()
            if wanted != stated:
                write_json(run.provenance, wanted)

    by_main(accelerator, open_run)
    stated = read_run(run.provenance)
    replay = None
    if "replayed" in stated:
        replay = Path(os.path.normpath(run.folder / stated["replayed"]))
    return train(
        read_recipe(stated),
        _prepared_folder(run, stated),
        run.folder,
        beginning=Beginning(begun=stated["data"].get("start"), replay=replay),
        fold=stated["data"].get("fold"),
        device=device,
        progress=progress,
        say=say,
    )


def _prepared_folder(run: Run, stated: dict[str, Any]) -> Path:
    """The run's prepared cohort; its provenance states the place relative to the run."""
    if "prepared" not in stated:
        raise BadInput(
            f"{run.provenance}: expected the place of the prepared cohort, found none. Give it with --data."
        )
    return Path(os.path.normpath(run.folder / stated["prepared"]))


def training_cohort(run: Run) -> Path | None:
    """The prepared cohort that a run was trained on; None if it is not there any more, or has changed."""
    stated = read_run(run.provenance) if run.provenance.is_file() else {}
    if "prepared" not in stated:
        return None
    place = _prepared_folder(run, stated)
    if not (place / "cohort.json").is_file():
        return None
    return place if open_cohort(place).digest == stated.get("data", {}).get("cohort") else None


def _check_cohort(run: Run, stated: dict[str, Any]) -> None:
    place = _prepared_folder(run, stated)
    if not (place / "cohort.json").is_file():
        raise BadInput(
            f"{run.folder}: expected its prepared cohort in {place}, found none. Give its place with --data."
        )
    if open_cohort(place).digest != stated["data"]["cohort"]:
        raise BadInput(
            f"{place}: expected the prepared cohort that {run.folder} was trained on, found other scans or another cohort.json. Give that cohort with --data."
        )


@dataclass(frozen=True)
class _Continuation:
    """What is asked of a run: additional steps, additional minutes, or neither; stated: its provenance."""

    run: Run
    recipe: Recipe
    stated: dict[str, Any]
    steps: int | None
    minutes: float | None
    say: Say

    def provenance(self) -> dict[str, Any]:
        """The provenance of the run with the requested steps; recipe.toml is written before it."""
        run, recipe, stated, say = self.run, self.recipe, self.stated, self.say
        if change := first_change(stated["recipe"], to_dict(recipe)):
            raise BadInput(
                f"{run.folder}: expected a run of this version of voxlate, found another ({change}). Train anew."
            )
        if run.recipe.exists():
            check_recipe_file(run, recipe, may_be_paced=bool(stated.get("paced")))
        asked = f"--minutes +{self.minutes:g}" if self.minutes else ""
        if self.steps:
            asked = f"--steps +{self.steps}"
        before: list[dict[str, Any]] = stated.get("continuations", [])
        if not is_finished(run.weights(), recipe.train):
            if asked and (not before or before[-1]["asked"] != asked):
                raise BadInput(
                    f"{run.folder}: expected a finished run for {asked}, found one that stopped before its last step. Resume it first: voxlate train {run.folder}"
                )
            self._check_resumable()
            text = f"resuming {run.folder}, which stopped before step {recipe.train.length}."
            say(message("resumed", text))
            return stated
        done = read_header(run.weights())
        if not asked:
            text = f"{run.folder} is finished, with {done['steps']} steps; --steps +{recipe.train.steps} continues it."
            say(message("finished", text))
            return stated
        self._check_state(done["steps"])
        steps = self.steps or self._steps_in_minutes(done)
        more = [*(recipe.train.more or ()), steps]
        values = {**stated["recipe"], "train": {**stated["recipe"]["train"], "more": more}}
        with_tables(recipe, values, f"{run.recipe}")
        head = header(run.recipe.read_text(encoding="utf-8")) if run.recipe.exists() else ""
        write_text(run.recipe, head + tomli_w.dumps(values))
        versions = {name: software()[name] for name in ("voxlate", "torch")}
        own = {"asked": asked, "from_step": done["steps"], "steps": steps, **versions}
        return {**stated, "recipe": values, "continuations": [*before, own]}

    def _steps_in_minutes(self, done: dict[str, Any]) -> int:
        """The steps that fit at the speed of the run so far, including validations."""
        minutes = self.minutes or 0
        each = done["seconds"] / done["steps"]
        steps = max(1, round(60 * minutes / each))
        text = f"{minutes:g} minutes are about {steps} steps of {each:.3g} s, which they took in this run so far."
        self.say(message("steps", text, steps=steps))
        return steps

    def _check_resumable(self) -> None:
        """Raise BadInput if the state from which the training continues is absent."""
        run = self.run
        if run.weights().exists():
            self._check_state(None)
        elif self.stated["data"].get("start") and not self._is_saved(None):
            raise BadInput(
                f"{run.folder}: expected a last stage that had begun, found one that is yet to start from the weights of --init. Give the whole command that began this run."
            )

    def _check_state(self, step: int | None) -> None:
        """Raise BadInput if state.pt is not of the last stage at this step; None: at any step."""
        run = self.run
        if self._is_saved(step):
            return
        there = "none"
        if run.state.exists():
            state = load_state(run.state)
            there = f"one of stage '{state['stage']}' at step {state['step']}"
        raise BadInput(
            f"{run.state}: expected the state of this run's last step, with the optimiser's moments, found {there}. Restore it, or begin a new run from these weights with --init {run.folder}."
        )

    def _is_saved(self, step: int | None) -> bool:
        """Whether state.pt is of the last stage, and at this step."""
        if not self.run.state.exists():
            return False
        state = load_state(self.run.state)
        return state["stage"] == "final" and step in (None, state["step"])
