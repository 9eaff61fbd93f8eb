"""RUN/state.pt: the state of a training that is not finished, with the digest of the training that it belongs to."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from voxlate.base.errors import BadInput
from voxlate.base.files import whole_file
from voxlate.base.items import stable_id
from voxlate.scans.cases.prepared import Cohort
from voxlate.training.job import Job
from voxlate.training.learner import Learner
from voxlate.training.recipe import Recipe, to_dict
from voxlate.training.run import Run


def owner_of(recipe: Recipe, cohort: Cohort | None) -> str:
    """The digest of what a state depends on: recipe, cohort and splits; additional steps may follow later."""
    known = {} if cohort is None else cohort.splits
    splits = {name: sorted(cases) for name, cases in known.items()}
    plain = to_dict(replace(recipe, train=replace(recipe.train, more=None)))
    whole = [plain, cohort and cohort.digest, splits]
    return f"{stable_id(json.dumps(whole, sort_keys=True)):016x}"


def save_state(path: Path, state: Mapping[str, Any], owner: str) -> None:
    """Write a state of the training with this digest, which replaces the one before."""
    with whole_file(path) as temporary:
        torch.save({**state, "owner": owner}, temporary)


def load_state(path: Path) -> dict[str, Any]:
    """Read the state of a stopped training onto the CPU, wherever it was trained.

    Only tensors and plain values are accepted from the file. Raises BadInput for a damaged or a foreign one.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            if packed.testzip() is not None:  # torch compares no checksums
                raise ValueError("a checksum differs")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        state["owner"], state["stage"], state["step"]
    except Exception as error:  # the reader raises many types for a damaged or foreign file
        raise BadInput(
            f"{path}: expected a training state, found an unreadable file. Delete it to start again."
        ) from error
    return state


def resume(learner: Learner, job: Job, run: Run) -> None:
    """Continue from the saved state of a stage, if there is one; raises BadInput if it is of another training."""
    if not run.state.exists():
        return
    state = load_state(run.state)
    if state["owner"] != owner_of(job.recipe, job.cohort):
        raise BadInput(
            f"{run.state}: expected the state of this run's training, found one of another recipe, cohort or split, or of an earlier version. Delete it to start again."
        )
    if state["stage"] != job.stage.name:
        return
    try:
        learner.load_state(state)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise BadInput(
            f"{run.state}: expected a state of this version's networks, found another ({str(error).splitlines()[0]:.200}). Delete it to start again."
        ) from error


def take_race(run: Run, owner: str) -> bool:
    """Let a training go on from the state of a race if it is its own; returns whether one was dropped.

    A state of another recipe, cohort, split or start would be wrong without a word.
    """
    if not run.race.exists():
        return False
    try:
        own = load_state(run.race)["owner"] == owner and not run.has_begun
    except BadInput:
        own = False
    if own:
        run.race.replace(run.state)
    else:
        run.race.unlink()
    return not own
