"""The weights with which a stage begins: random, or those of a starter or an earlier stage, all or a part trained."""

from collections.abc import Mapping, Sequence

from torch import nn

from voxlate.base.errors import BadInput
from voxlate.scans.images.intensity import IntensityMap
from voxlate.science.methods.method import Method
from voxlate.science.nets.unet import ResidualUNet
from voxlate.training.recipe import FullStage
from voxlate.training.starter import starter_for
from voxlate.training.starters.names import is_starter


def initial_method(stage: FullStage, earlier: Mapping[str, Method]) -> tuple[Method, str]:
    """The untrained method of a stage, and a sentence for the log if some of its weights are not random."""
    method = stage.build(earlier)
    started = ""
    source = stage.start_from
    if is_starter(source):
        weights, maps = starter_for(source, stage)
        started = start_from(method, weights, str(source))
        started += show_window(method, stage.data.target, maps, stage.start_window)
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


def show_window(
    method: Method,
    targets: Sequence[str],
    of: Mapping[str, IntensityMap],
    window: Mapping[str, tuple[float, float]],
) -> str:
    """Rescale the output of copied weights so that -1 to 1 are the ends of a window; returns a sentence for the log.

    of: the intensity maps of the weights' training. Raises BadInput where that of a target is no fixed range.
    """
    sentence = ""
    for name, (low, high) in window.items():
        whole = of[name].window
        if whole is None:
            raise BadInput(
                f"start_window.{name}: expected a starter whose range of {name} is a window, found an intensity map of each volume. Drop it."
            )
        factor = (whole[1] - whole[0]) / (high - low)
        offset = (whole[0] + whole[1] - low - high) / (high - low)
        net = method.without_opponent.net
        assert isinstance(net, ResidualUNet)  # recipe.checks
        net.rescale(targets.index(name), factor, offset)
        sentence += (
            f"; its {name} was rescaled from {whole[0]:g} to {whole[1]:g} to {low:g} to {high:g}"
        )
    return sentence


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
