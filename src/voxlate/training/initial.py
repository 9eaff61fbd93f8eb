"""The weights with which a stage begins: random, or those of a starter or an earlier stage, all or a part trained."""

from collections.abc import Mapping

from torch import nn

from voxlate.base.errors import BadInput
from voxlate.science.methods.method import Method
from voxlate.training.recipe import FullStage
from voxlate.training.starter import starter_for
from voxlate.training.starters.names import is_starter


def initial_method(stage: FullStage, earlier: Mapping[str, Method]) -> tuple[Method, str]:
    """The untrained method of a stage, and a sentence for the log if some of its weights are not random."""
    method = stage.build(earlier)
    started = ""
    source = stage.start_from
    if is_starter(source):
        started = start_from(method, starter_for(source, stage), str(source))
    elif source is not None:
        started = start_from(method, earlier[source], source)
    if stage.train.only is not None:
        train_only(method, stage.train.only)
    return method, started


def start_from(method: Method, earlier: Method, name: str) -> str:
    """Copy the weights of an earlier stage's method, except for its opponent; returns a sentence for the log.

    Raises BadInput if a weight has no counterpart with its name and shape.
    """
    here = method.without_opponent.state_dict()
    there = earlier.without_opponent.state_dict()
    for key, tensor in there.items():
        if key not in here or here[key].shape != tensor.shape:
            shape = tuple(here[key].shape) if key in here else "none"
            raise BadInput(
                f"start_from = '{name}': expected a weight for each of its weights, found {shape} for '{key}' of shape {tuple(tensor.shape)}. Use the same networks except for new parts."
            )
    method.without_opponent.load_state_dict({**here, **there})
    fresh = len(here) - len(there)
    return f"started from the weights of stage '{name}': {len(there)} tensors copied, {fresh} fresh"


def train_only(method: Method, part: str) -> None:
    """Freeze all weights without this part in their dotted name, except for critics; raises BadInput if none remains."""
    moving = 0
    for name, parameter in method.without_opponent.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and f".{part}." in f".{name}.")
        moving += parameter.requires_grad
    for module in method.without_opponent.modules():
        frozen = not any(parameter.requires_grad for parameter in module.parameters())
        if frozen and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.0  # its statistics are no parameters, but would move
    if not moving:
        paths = [name.split(".")[:-1] for name, _ in method.without_opponent.named_parameters()]
        names = sorted(set[str]().union(*paths))
        raise BadInput(
            f"train.only: expected a part of the weights' names ({', '.join(names[:12])}, …), found '{part}', which is in none that may move. Change it."
        )
