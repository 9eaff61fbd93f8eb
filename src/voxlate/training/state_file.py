"""RUN/state.pt: the state of a training that is not finished, and the check that a training may continue from it."""

import itertools
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NotRequired

import torch
from pydantic import StringConstraints
from torch import Tensor
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from voxlate.base.errors import BadInput
from voxlate.base.files import whole_file
from voxlate.base.records import Count, NotNegative, Record, Several, Text
from voxlate.training.changes import first_change
from voxlate.training.job import Job
from voxlate.training.learner import Learner
from voxlate.training.run import Run

# A tensor is checked by its outline, such as "torch.float32 (2, 3)"; texts are quoted in outlines.
Outline = Annotated[str, StringConstraints(pattern=r"^torch\.\w+ \([\d, ]*\)$")]
Sum = Annotated[str, StringConstraints(pattern=r"^torch\.float(32|64) \(\)$")]
Outlines = dict[Text, Outline]


class _Optimiser(TypedDict):
    state: dict[Text, Outlines]
    param_groups: list[Any]  # not used, because the recipe states these settings


class _Epochs(TypedDict):
    steps: Count
    losses: list[float]
    running: Sum | None
    count: Count


class _Best(TypedDict):
    step: Count
    error: float
    weights: Outlines
    since: Count


class _State(TypedDict):
    """The entries of a state, where tensors are replaced by their outlines."""

    method: Outlines
    averaged: Outlines
    optimisers: dict[Text, _Optimiser]
    epochs: _Epochs
    memory: Outlines
    step: Several
    seconds: NotNegative
    stage: Text
    best: NotRequired[_Best]


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state, which replaces the one before."""
    with whole_file(path) as temporary:
        torch.save(dict(state), temporary)


def resume(learner: Learner, job: Job, run: Run) -> None:
    """Continue from the saved state of a stage, if there is one; raises BadInput if it is of no stage of the recipe."""
    if not run.state.exists():
        return
    state = load_state(run.state)
    names = [stage.name for stage in job.recipe.all_stages]
    if state["stage"] not in names:
        raise BadInput(
            f"{run.state}: expected a state of one of the stages {', '.join(names)}, found one of '{state['stage']:.80}'. Delete it to start again."
        )
    if state["stage"] == job.stage.name:
        check_state(run.state, state, learner, job.stage.train.length, job.stage.data.patch)
        learner.load_state(state)


def take_race(run: Run, owner: str) -> bool:
    """Let a training go on from the state of a race if it is its own; returns whether one was dropped.

    A state of another recipe, cohort, split or start would be wrong without a word.
    """
    if not run.race.exists():
        return False
    try:
        kept = torch.load(run.race, map_location="cpu", weights_only=True)
        own = kept["owner"] == owner and not run.has_begun
    except Exception:  # the reader raises many types for a damaged file
        own = False
    if own:
        save_state(run.state, kept["state"])
    run.race.unlink()
    return not own


def load_state(path: Path) -> dict[str, Any]:
    """Read the state of a stopped training onto the CPU, wherever it was trained.

    Only tensors and plain values are accepted from the file.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            if packed.testzip() is not None:  # torch compares no checksums
                raise ValueError("a checksum differs")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the reader raises many types for a damaged or foreign file
        raise BadInput(
            f"{path}: expected a training state, found an unreadable file. Delete it to start again."
        ) from error
    check_outline(path, state)
    return state


def check_outline(path: Path, state: object) -> None:
    """Raise BadInput unless a state has all entries, and each of them is of its type."""
    _record(path).fill(_State, _outline(state))


def check_state(
    path: Path, state: Mapping[str, Any], learner: Learner, length: int, patch: Sequence[int]
) -> None:
    """Raise BadInput unless a state (see `check_outline`) is of this training, with its length and patch."""
    record = _record(path)
    record.check(state["step"] <= length, f"the step {state['step']} of a training of {length}")
    averaged = learner.averaged.state_dict()
    wanted: dict[str, Any] = {"method": learner.method.state_dict(), "averaged": averaged}
    moments = {turn: optimiser["state"] for turn, optimiser in state["optimisers"].items()}
    stored: dict[str, Any] = {**{key: state[key] for key in wanted}, "moments": moments}
    wanted["moments"] = {
        turn: _moments_like(optimiser, moments.get(turn, {}))
        for turn, optimiser in learner.optimisers.items()
    }
    if "best" in state:
        wanted["best"], stored["best"] = averaged, state["best"]["weights"]
    change = first_change(_outline(stored), _outline(wanted))
    record.check(not change, f"the state of another training ({change})")
    for name, images in state["memory"].items():
        most, channels = learner.method.training_rooms.get(name, (0, 0))
        fits = images.shape[1:] == (channels, *patch) and 1 <= len(images) <= most
        record.check(fits, f"a memory '{name}' of {_outline(images)}")


def _record(path: Path) -> Record:
    return Record(path, "a training state", "Delete it to start again.")


def _outline(value: Any) -> Any:
    """A value as JSON: a tensor is replaced by its type and shape, a text by its quoted form."""
    if isinstance(value, Tensor):
        plain = value.layout == torch.strided and value.device.type != "meta"
        # A single stored number may stand for more values than fit in memory.
        plain = plain and 0 not in value.stride()
        sound = plain and (not value.is_floating_point() or bool(value.isfinite().all()))
        outline = f"{value.dtype} {tuple(value.shape)}"
        return outline if sound else f"{outline} with values that are not finite"
    if isinstance(value, Mapping):
        return {str(key): _outline(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_outline(entry) for entry in value]
    return value if isinstance(value, bool | int | float | None) else repr(value)


def _moments_like(
    optimiser: torch.optim.Optimizer, state: Mapping[int, Any]
) -> dict[int, dict[str, Tensor]]:
    """Tensors with the shapes of an optimiser's moments, of those parameters that a state has moments of."""
    like = {}
    numbers = itertools.count()
    for group in optimiser.param_groups:
        names = ("momentum",) if group["orthogonal"] else ("exp_avg", "exp_avg_sq")
        for parameter, number in zip(group["params"], numbers):
            if number in state:
                like[number] = {"step": torch.zeros(()), **dict.fromkeys(names, parameter)}
    return like
