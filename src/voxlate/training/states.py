"""The checks of state.pt before it is loaded: the tensors and numbers of a training that continues from it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from voxlate.methods.method import Method
from voxlate.system.records import LARGEST, MOST, Record

if TYPE_CHECKING:
    from voxlate.training.learner import Epochs, Learner

OUTLINE = {
    "method",
    "averaged",
    "optimisers",
    "epochs",
    "memory",
    "step",
    "seconds",
    "stage",
}
# These keys of torch's groups change how a step is computed and not its result; they depend on the version of torch.
OF_TORCH = {
    "amsgrad",
    "maximize",
    "foreach",
    "capturable",
    "differentiable",
    "fused",
    "decoupled_weight_decay",
}

# These keys change the training.
CHANGES_STEPS = {"amsgrad", "maximize", "decoupled_weight_decay"}


def _record(path: Path | str) -> Record:
    return Record(path, "a training state", "Delete it to start again.")


def check_outline(path: Path, state: object) -> None:
    """Raise BadInput unless a state has all entries, a stage and a step."""
    record = _record(path)
    record.check(
        isinstance(state, dict) and all(isinstance(key, str) for key in state),
        "no table",
    )
    assert isinstance(state, dict)
    lacking = sorted(OUTLINE - state.keys())
    more = sorted(state.keys() - OUTLINE - {"best"})
    record.check(
        not lacking and not more,
        f"{', '.join([*(f'no {key}' for key in lacking), *more])}"[:200],
    )
    record.check(isinstance(state["stage"], str), "a stage without a name")
    record.check(
        _is_whole(state["step"]) and 1 <= state["step"] <= MOST,
        f"the step {state['step']!r:.80}",
    )
    seconds = state["seconds"]
    record.check(
        type(seconds) in (int, float) and 0 <= seconds <= LARGEST,
        f"{seconds!r:.80} seconds",
    )


def check_state(
    path: Path,
    state: Mapping[str, Any],
    learner: "Learner",
    length: int,
    patch: Sequence[int],
) -> None:
    """Raise BadInput unless a state (see `check_outline`) is of this training, with its length and patch."""
    record = _record(path)
    step = state["step"]
    record.check(step <= length, f"the step {step} of a training of {length}")
    _check_tensors(record, "method", state["method"], learner.method.state_dict())
    _check_tensors(record, "averaged", state["averaged"], learner.averaged.state_dict())
    optimisers = state["optimisers"]
    known = isinstance(optimisers, dict) and optimisers.keys() == learner.optimisers.keys()
    record.check(known, f"optimisers of other turns than {', '.join(learner.optimisers)}")
    for turn, optimiser in learner.optimisers.items():
        _check_optimiser(
            record,
            f"optimisers.{turn}",
            optimisers[turn],
            optimiser,
            step * learner.method.turns[turn],
        )
    _check_epochs(record, state["epochs"], learner.epochs, step)
    _check_memory(record, state["memory"], learner.method, patch)
    if "best" in state:
        _check_best(record, state["best"], learner.averaged, step)


def _check_best(record: Record, state: object, averaged: Method, step: int) -> None:
    """Check the kept weights of the least validation error."""
    keys = {"step", "error", "weights", "since"}
    record.check(isinstance(state, dict) and state.keys() == keys, "best weights of another form")
    assert isinstance(state, dict)
    sound = _is_whole(state["step"]) and 0 <= state["step"] <= step
    record.check(sound, f"best weights of the step {state['step']!r:.80}")
    sound = _is_whole(state["since"]) and 0 <= state["since"] <= MOST
    record.check(sound, f"{state['since']!r:.80} validations since the best weights")
    error = state["error"]
    record.check(type(error) is float and math.isfinite(error), "a best error that is no number")
    _check_tensors(record, "best", state["weights"], averaged.state_dict())


def _check_optimiser(
    record: Record,
    where: str,
    state: object,
    optimiser: torch.optim.Optimizer,
    most_steps: int,
) -> None:
    """Check that moments are of the optimiser's parameters, and settings are those of the recipe."""
    sound = (
        isinstance(state, dict)
        and state.keys() == {"state", "param_groups"}
        and isinstance(state["state"], dict)
    )
    record.check(sound, f"{where} without moments")
    assert isinstance(state, dict)
    groups = state["param_groups"]
    wanted = optimiser.state_dict()["param_groups"]
    record.check(
        isinstance(groups, list) and len(groups) == len(wanted),
        f"other groups in {where}",
    )
    expected = dict[int, tuple[Tensor, bool]]()
    for group, own, real in zip(groups, wanted, optimiser.param_groups):
        record.check(isinstance(group, dict), f"{where} with a group that is none")
        record.check((own.keys() ^ group.keys()) <= OF_TORCH, f"{where} with other settings")
        for key in own.keys() - OF_TORCH - {"lr"}:
            record.check(
                _same(group[key], own[key]),
                f"{where}.{key} of {group[key]!r:.80}, not {own[key]!r:.80}",
            )
        for key in OF_TORCH & group.keys():
            value = group[key]
            record.check(value is None or type(value) is bool, f"{where}.{key} of {value!r:.80}")
            same = key not in CHANGES_STEPS or bool(value) == bool(own.get(key, value))
            record.check(same, f"{where}.{key} of {value}, not {own.get(key)}")
        rate = group["lr"]
        record.check(type(rate) is float and 0 <= rate <= LARGEST, f"{where}.lr of {rate!r:.80}")
        expected |= {
            number: (parameter, bool(own.get("orthogonal")))
            for number, parameter in zip(own["params"], real["params"])
        }
    for number, moments in state["state"].items():
        record.check(
            type(number) is int and number in expected,
            f"{where} with moments of no parameter",
        )
        parameter, orthogonal = expected[number]
        shapes = {
            "step": torch.zeros(()),
            **dict.fromkeys(_moments(orthogonal), parameter),
        }
        _check_tensors(record, f"{where}.{number}", moments, shapes)
        count = float(moments["step"])
        record.check(
            count == round(count) and 0 <= count <= most_steps,
            f"{where}.{number} at step {count:g}",
        )
        squares = moments.get("exp_avg_sq")
        record.check(
            squares is None or bool((squares >= 0).all()),
            f"{where}.{number} with negative squares",
        )


def _moments(orthogonal: bool) -> tuple[str, ...]:
    return ("momentum",) if orthogonal else ("exp_avg", "exp_avg_sq")


def _check_epochs(record: Record, state: object, epochs: "Epochs", step: int) -> None:
    known = isinstance(state, dict) and state.keys() - {"steps"} == {
        "losses",
        "running",
        "count",
    }
    record.check(known, "epochs without losses")
    assert isinstance(state, dict)
    steps = state.get("steps", epochs.steps)  # version 0.6 did not write them
    sound = _is_whole(steps) and 0 <= steps <= MOST and bool(steps) == bool(epochs.steps)
    record.check(sound, f"epochs of {steps!r:.80} steps")
    losses = state["losses"]
    running = state["running"]
    count = state["count"]
    record.check(isinstance(losses, list) and _is_whole(count), "epochs whose losses are none")
    record.check(
        all(type(loss) is float and math.isfinite(loss) for loss in losses),
        "losses that are no numbers",
    )
    whole, part = divmod(step, steps) if steps else (0, 0)
    record.check(
        (len(losses), count) == (whole, part),
        f"{len(losses)} epochs and {count} steps at step {step}",
    )
    record.check((running is None) == (count == 0), "a running loss of no steps, or none of some")
    if running is not None:
        kind = running.dtype if isinstance(running, Tensor) else None
        wanted = torch.zeros((), dtype=torch.float64 if kind == torch.float64 else torch.float32)
        _check_tensors(record, "epochs", {"running": running}, {"running": wanted})


def _check_memory(record: Record, state: object, method: Method, patch: Sequence[int]) -> None:
    """Check the images that a method stores: their number, and the size of a patch."""
    rooms = method.training_rooms
    record.check(
        isinstance(state, dict) and state.keys() <= rooms.keys(),
        "a memory of other images",
    )
    assert isinstance(state, dict)
    for name, images in state.items():
        most, channels = rooms[name]
        known = isinstance(images, Tensor) and images.ndim > 0 and 1 <= len(images) <= most
        record.check(known, f"a memory '{name}' of no images, or too many")
        # This is the precision of the training.
        kind = torch.bfloat16 if images.dtype == torch.bfloat16 else torch.float32
        wanted = torch.empty((len(images), channels, *patch), dtype=kind, device="meta")
        _check_tensors(record, "memory", {name: images}, {name: wanted})


def _check_tensors(
    record: Record, where: str, tensors: object, wanted: Mapping[str, Tensor]
) -> None:
    """Check names, types and shapes of tensors, and that all values are finite."""
    record.check(isinstance(tensors, dict), f"'{where}' that is no table")
    assert isinstance(tensors, dict)
    odd = list(wanted.keys() ^ tensors.keys())
    if odd:
        raise record.wrong(f"'{where}' where '{odd[0]!s:.80}' is missing or unknown")
    for name, expected in wanted.items():
        value = tensors[name]
        plain = (
            isinstance(value, Tensor)
            and value.layout == torch.strided
            and value.device.type == "cpu"
        )
        record.check(plain, f"'{where}.{name}' that is no tensor")
        same = value.shape == expected.shape and value.dtype == expected.dtype
        record.check(
            same,
            f"'{where}.{name}' of shape {tuple(value.shape)} {value.dtype}, not {tuple(expected.shape)}",
        )
        sound = not value.is_floating_point() or bool(value.isfinite().all())
        record.check(sound, f"'{where}.{name}' with values that are not finite")


def _same(value: Any, other: Any) -> bool:
    """Whether two plain values are equal and of one type; a list may equal a tuple."""
    if isinstance(other, list | tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(other)
            and all(map(_same, value, other))
        )
    return type(value) is type(other) and bool(value == other)


def _is_whole(value: object) -> bool:
    return type(value) is int
