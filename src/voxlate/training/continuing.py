"""Continuing a run by its folder alone: more steps of a finished run, or resuming a stopped one."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli_w

from voxlate.cases.prepared import open_cohort
from voxlate.recipe import from_dict, header, to_dict, with_tables
from voxlate.scoring.provenance import read_run
from voxlate.system.errors import BadInput
from voxlate.system.files import locked, seen_from, write_json, write_text
from voxlate.training.log import StepCallback
from voxlate.training.processes import by_main, processes
from voxlate.training.recorded import recorded
from voxlate.training.run import Run, first_change, is_finished, load_state, made_by, read_header
from voxlate.training.train import Adaptation, train

Say = Callable[[str], None]


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
    to steps by the speed of the run; data: the prepared cohort, if it was moved; allow_code: import the code outside voxlate that the run names. The same call resumes a stopped
    continuation. Raises BadInput if the folder is no run, if the cohort differs, or if the state is absent.
    """
    run = Run(Path(folder))
    accelerator, _ = processes(device)
    by_main(accelerator, lambda: _open(run, steps, minutes, data, allow_code, say))
    stated = read_run(run.provenance)
    started = {"begun": stated["data"].get("start"), "fold": stated["data"].get("fold")}
    adaptation = None
    if "replayed" in stated:
        replay = Path(os.path.normpath(run.folder / stated["replayed"]))
        adaptation = Adaptation({}, replay=replay)
    recipe = from_dict(stated["recipe"], f"{run.provenance}", allow_code)
    return train(
        recipe,
        _prepared(run, stated),
        run.folder,
        **started,
        adaptation=adaptation,
        device=device,
        progress=progress,
        say=say,
    )


def _open(
    run: Run,
    steps: int | None,
    minutes: float | None,
    data: Path | None,
    allow_code: bool,
    say: Say,
) -> None:
    """Check that the run can continue, and write the place of its cohort and the requested steps."""
    if not run.provenance.is_file():
        raise BadInput(
            f"{run.folder}: expected a run to continue, found no provenance.json in it. To train a new one, give a recipe, --data PREPARED and --out RUN."
        )
    with locked(run.folder):
        stated = read_run(run.provenance)
        if not isinstance(stated.get("recipe"), dict) or not stated.get("data", {}).get("cohort"):
            raise BadInput(
                f"{run.folder}: expected a run that voxlate trained, found none. Train a new one."
            )
        place = seen_from(run.folder, (data or _prepared(run, stated)).resolve())
        moved = {**stated, "prepared": place}
        _check_cohort(run, moved)
        asked = f"--minutes +{minutes:g}" if minutes else ""
        if steps:
            asked = f"--steps +{steps}"
        wanted = _with_more(run, moved, asked, steps, minutes, allow_code, say)
        if wanted != stated:
            write_json(run.provenance, wanted)


def _prepared(run: Run, stated: dict[str, Any]) -> Path:
    """The run's prepared cohort; its provenance states the place relative to the run."""
    if "prepared" not in stated:
        raise BadInput(
            f"{run.provenance}: expected the place of the prepared cohort, found none. Give it with --data."
        )
    return Path(os.path.normpath(run.folder / stated["prepared"]))


def recorded_cohort(run: Run) -> Path | None:
    """The prepared cohort that a run was trained on; None if it is not there any more, or has changed."""
    if not run.provenance.is_file():
        return None
    stated = read_run(run.provenance)
    if "prepared" not in stated:
        return None
    place = _prepared(run, stated)
    if not (place / "cohort.json").is_file():
        return None
    same = open_cohort(place).digest == stated.get("data", {}).get("cohort")
    return place if same else None


def _check_cohort(run: Run, stated: dict[str, Any]) -> None:
    place = _prepared(run, stated)
    if not (place / "cohort.json").is_file():
        raise BadInput(
            f"{run.folder}: expected its prepared cohort in {place}, found none. Give its place with --data."
        )
    if open_cohort(place).digest != stated["data"]["cohort"]:
        raise BadInput(
            f"{place}: expected the prepared cohort that {run.folder} was trained on, found other scans or another cohort.json. Give that cohort with --data."
        )


def _with_more(
    run: Run,
    stated: dict[str, Any],
    asked: str,
    steps: int | None,
    minutes: float | None,
    allow_code: bool,
    say: Say,
) -> dict[str, Any]:
    """The provenance of the run with the requested steps; recipe.toml is written before it."""
    recipe = from_dict(stated["recipe"], f"{run.provenance}", allow_code)
    change = first_change(stated["recipe"], to_dict(recipe))
    if change:
        raise BadInput(
            f"{run.folder}: expected a run of this version of voxlate, found another ({change}). Train anew."
        )
    if run.recipe.exists():
        recorded(run, recipe, bool(stated.get("paced")), allow_code)
    before: list[dict[str, Any]] = stated.get("continuations", [])
    if not is_finished(run.weights(), recipe.train):
        if asked and (not before or before[-1]["asked"] != asked):
            raise BadInput(
                f"{run.folder}: expected a finished run for {asked}, found one that stopped before its last step. Resume it first: voxlate train {run.folder}"
            )
        _check_resumable(run, stated)
        say(f"resuming {run.folder}, which stopped before step {recipe.train.length}.")
        return stated
    done = read_header(run.weights())
    if not asked:
        say(
            f"{run.folder} is finished, with {done['steps']} steps; --steps +{recipe.train.steps} continues it."
        )
        return stated
    _check_state(run, done["steps"])
    if steps is None:
        steps = _steps_in(minutes or 0, done, say)
    values = {
        **stated["recipe"],
        "train": {
            **stated["recipe"]["train"],
            "more": [*(recipe.train.more or ()), steps],
        },
    }
    with_tables(recipe, values, f"{run.recipe}")
    head = header(run.recipe.read_text(encoding="utf-8")) if run.recipe.exists() else ""
    write_text(run.recipe, head + tomli_w.dumps(values))
    software = {name: made_by()[name] for name in ("voxlate", "torch")}
    own = {"asked": asked, "from_step": done["steps"], "steps": steps, **software}
    return {**stated, "recipe": values, "continuations": [*before, own]}


def _steps_in(minutes: float, done: dict[str, Any], say: Say) -> int:
    """The steps that fit at the speed of the run so far, including validations."""
    each = done["seconds"] / done["steps"]
    steps = max(1, round(60 * minutes / each))
    say(
        f"{minutes:g} minutes are about {steps} steps of {each:.3g} s, which they took in this run so far."
    )
    return steps


def _check_resumable(run: Run, stated: dict[str, Any]) -> None:
    """Raise BadInput if the state from which the training continues is absent."""
    if run.weights().exists():
        _check_state(run, None)
    elif stated["data"].get("start") and _stage_and_step(run)[0] != "final":
        raise BadInput(
            f"{run.folder}: expected a last stage that had begun, found one that is yet to start from the weights of --init. Give the whole command that began this run."
        )


def _check_state(run: Run, step: int | None) -> None:
    """Raise BadInput if state.pt is not of the last stage at this step."""
    stage, saved = _stage_and_step(run)
    if stage == "final" and step in (None, saved):
        return
    there = f"one of stage '{stage}' at step {saved}" if stage else "none"
    raise BadInput(
        f"{run.state}: expected the state of this run's last step, with the optimiser's moments, found {there}. Restore it, or begin a new run from these weights with --init {run.folder}."
    )


def _stage_and_step(run: Run) -> tuple[str, int]:
    """Stage and step of the saved state; "" if there is none."""
    if not run.state.exists():
        return "", 0
    state = load_state(run.state)
    return str(state["stage"]), int(state["step"])
