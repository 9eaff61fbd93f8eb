"""RUN/state.pt: the state of a training that is not finished, and the check that a training may continue from it."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired

import torch
from torch import Tensor
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from voxlate.system.errors import BadInput
from voxlate.system.files import whole_file
from voxlate.system.records import Count, NotNegative, Record, Several, Text
from voxlate.training.changes import first_change
from voxlate.training.learner import Learner

# These keys of torch's groups change how a step is computed and not its result; they depend on the version of torch.
OF_TORCH = {"foreach", "capturable", "differentiable", "fused"}
# These keys depend on it too, but change the training.
CHANGES_STEPS = {"amsgrad", "maximize", "decoupled_weight_decay"}

Outlines = dict[Text, Text]


class _Optimiser(TypedDict):
    state: dict[Text, Outlines]
    param_groups: list[dict[Text, Any]]


class _Epochs(TypedDict):
    steps: NotRequired[Count]  # version 0.6 did not write them
    losses: list[float]
    running: Text | None
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
    step = state["step"]
    record.check(step <= length, f"the step {step} of a training of {length}")
    optimisers = state["optimisers"]
    turns = learner.optimisers.keys()
    record.check(optimisers.keys() == turns, f"optimisers of other turns than {', '.join(turns)}")
    averaged = learner.averaged.state_dict()
    wanted: dict[str, Any] = {"method": learner.method.state_dict(), "averaged": averaged}
    found: dict[str, Any] = {key: state[key] for key in wanted}
    if "best" in state:
        wanted["best"], found["best"] = averaged, state["best"]["weights"]
        late = state["best"]["step"] > step
        record.check(not late, f"best weights of the step {state['best']['step']}")
    for turn, optimiser in learner.optimisers.items():
        theirs = optimisers[turn]
        wanted[turn] = _moments_like(optimiser, theirs["state"])
        found[turn] = theirs["state"]
        _check_settings(record, turn, theirs["param_groups"], optimiser)
    change = first_change(_outline(found), _outline(wanted))
    record.check(not change, f"the state of another training ({change})")
    for turn in turns:
        most = step * learner.method.turns[turn]
        for number, moments in optimisers[turn]["state"].items():
            count = float(moments["step"])
            squares = moments.get("exp_avg_sq")
            sound = squares is None or bool((squares >= 0).all())
            sound &= count.is_integer() and 0 <= count <= most
            where = f"moments {turn}.{number} at step {count:g}"
            record.check(sound, f"{where} of {most}, or with negative squares")
    _check_epochs(record, state["epochs"], learner.epochs.steps, step)
    _check_memory(record, state["memory"], learner.method.training_rooms, patch)


def _record(path: Path) -> Record:
    return Record(path, "a training state", "Delete it to start again.")


def _outline(value: Any) -> Any:
    """A value as JSON: a tensor is replaced by its type and shape, which is without quotes, unlike a text."""
    if isinstance(value, Tensor):
        plain = value.layout == torch.strided and value.device.type != "meta"
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
    for own, real in zip(optimiser.state_dict()["param_groups"], optimiser.param_groups):
        names = ("momentum",) if own.get("orthogonal") else ("exp_avg", "exp_avg_sq")
        for number, parameter in zip(own["params"], real["params"]):
            if number in state:
                like[number] = {"step": torch.zeros(()), **dict.fromkeys(names, parameter)}
    return like


def _check_settings(
    record: Record,
    turn: str,
    groups: Sequence[Mapping[str, Any]],
    optimiser: torch.optim.Optimizer,
) -> None:
    """Raise BadInput unless the settings of an optimiser are those of the recipe; its rate may differ."""
    own_groups = optimiser.state_dict()["param_groups"]
    record.check(len(groups) == len(own_groups), f"other groups of the optimiser of '{turn}'")
    for group, own in zip(groups, own_groups):
        common = group.keys() & own.keys()
        for key in (OF_TORCH | CHANGES_STEPS) & group.keys():
            known = isinstance(group[key], bool | None)
            record.check(known, f"the setting {key} of {group[key]!r:.80} in '{turn}'")
            same = key in OF_TORCH or key not in common or bool(group[key]) == bool(own[key])
            record.check(same, f"the setting {key} of {group[key]!r:.80} in '{turn}'")
        unused = OF_TORCH | CHANGES_STEPS | {"lr"}
        theirs, ours = (
            {key: _outline(value) for key, value in table.items() if key not in unused}
            for table in (group, own)
        )
        change = first_change(theirs, ours)
        record.check(not change, f"an optimiser of '{turn}' with other settings ({change})")
        rate = group.get("lr")
        record.check(isinstance(rate, float) and rate >= 0, f"the rate {rate!r:.80} of '{turn}'")


def _check_epochs(record: Record, state: Mapping[str, Any], own_steps: int, step: int) -> None:
    """Raise BadInput unless the losses of epochs are of as many steps as were trained; 0 steps: they are not kept."""
    steps = state.get("steps", own_steps)
    record.check(bool(steps) == bool(own_steps), f"epochs of {steps} steps")
    losses, running, count = state["losses"], state["running"], state["count"]
    known = divmod(step, steps) if steps else (0, 0)
    found = f"{len(losses)} epochs and {count} steps at step {step}"
    record.check((len(losses), count) == known, found)
    sums = ["torch.float32 ()", "torch.float64 ()"] if count else [None]
    record.check(_outline(running) in sums, "a running loss of no steps, or none of some")


def _check_memory(
    record: Record,
    memory: Mapping[str, Tensor],
    rooms: Mapping[str, tuple[int, int]],
    patch: Sequence[int],
) -> None:
    """Raise BadInput unless the images that a method stores have the size of a patch, and are not too many."""
    record.check(memory.keys() <= rooms.keys(), "a memory of other images")
    for name, images in memory.items():
        most, channels = rooms[name]
        known = isinstance(images, Tensor) and images.ndim > 0 and 1 <= len(images) <= most
        record.check(known, f"a memory '{name}' of no images, or too many")
        shape = (len(images), channels, *patch)
        # The precision is that of the training.
        wanted = [f"{kind} {shape}" for kind in (torch.bfloat16, torch.float32)]
        found = _outline(images)
        record.check(found in wanted, f"a memory '{name}' of {found}, not {wanted[1]}")
