"""A method's synthesis of one sample as a graph of ONNX: network, mean stage and all steps of its sampler."""

import contextlib
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from voxlate.batch import Batch
from voxlate.diffusion.streams import NormalStream
from voxlate.methods.method import Method
from voxlate.recipe import Recipe
from voxlate.synthesis.progress import count_calls
from voxlate.system.errors import BadInput

OPSET = 17  # which onnxruntime-web runs in WASM and WebGPU, too
ITEMS = 2  # of the self-test: the size of a batch must not become a constant of the graph
MOST_SIDE = 160  # pixels of the self-test's slices


class GivenNoise:
    """Noise that is an input: the draws of one sample, in their order, [draws, B, C, D, H, W]."""

    def __init__(self, draws: Tensor) -> None:
        self.draws = draws
        self.count = 0

    def normal_like(self, x: Tensor) -> Tensor:
        """The next draw."""
        self.count += 1
        return self.draws[self.count - 1]

    __call__ = normal_like


class CountedNoise:
    """Noise of zeros, which counts its draws and keeps their shape."""

    def __init__(self) -> None:
        self.shapes = list[torch.Size]()

    def normal_like(self, x: Tensor) -> Tensor:
        """Zeros."""
        self.shapes.append(x.shape)
        return torch.zeros_like(x)

    __call__ = normal_like


class Sample(nn.Module):
    """One sample of patches as a function of arrays."""

    def __init__(self, method: Method, recipe: Recipe) -> None:
        super().__init__()
        self.method = method.without_opponent
        self.recipe = recipe

    def forward(self, source: Tensor, mask: Tensor, present: Tensor, noise: Tensor) -> Tensor:
        """The images [B, T, D, H, W]; noise: [draws, B, C, D, H, W]."""
        return self.of(source, mask, present, GivenNoise(noise))

    def of(self, source: Tensor, mask: Tensor, present: Tensor, noise: Any) -> Tensor:
        """The images of patches, and with synth.mirror their mean with the mirrored ones."""
        data, synth = self.recipe.data, self.recipe.synth
        nothing = torch.zeros(1, 1, dtype=torch.int64)  # synthesis reads no ids: its noise is given
        names = data.source_names, tuple(data.target)
        batch = Batch(source, mask, present, nothing, source_names=names[0], target_names=names[1])
        image = self.method.synthesise(batch, noise, synth).float()
        axis = data.axis_lr
        if synth.mirror and source.shape[axis] > 1:
            flipped = replace(batch, source=source.flip(axis), mask=mask.flip(axis))
            mirrored = self.method.synthesise(flipped, noise, synth).float()
            image = (image + mirrored.flip(axis)) / 2
        return image


@dataclass(frozen=True)
class Traced:
    """A written graph: the inputs and the image of its self-test, its draws and their channels and factor of size."""

    arrays: dict[str, np.ndarray]
    draws: int
    noise_channels: int
    shrink: int
    evaluations: float


def write_graph(path: Path, method: Method, recipe: Recipe) -> Traced:
    """Trace a method's synthesis by a small example, and write it as ONNX.

    Raises BadInput for what no graph of fixed steps does.
    """
    synth = recipe.synth
    if math.isinf(synth.evaluations) and recipe.method.iterates:
        raise BadInput(
            f"synth.sampler: expected a sampler of a fixed number of steps, found {synth.sampler}, which chooses its own. Export with another one (--set sampler=ddim)."
        )
    if synth.windows is not None:
        raise BadInput(
            "synth.windows: expected none in a model that runs without torch, found windows of slices. Export with synth.windows unset."
        )
    sample = Sample(method, recipe).eval()
    with torch.no_grad(), _plain_kernels():
        inputs = _example(recipe)
        counted = CountedNoise()
        with count_calls(sample.method.net) as calls:
            sample.of(*inputs, counted)
        shape = counted.shapes[0] if counted.shapes else torch.Size((ITEMS, 1, 1, 1, 1))
        noise = _normal(3, (len(counted.shapes), *shape))
        image = sample(*inputs, noise)
        _trace(path, sample, (*inputs, noise), recipe)
    names = ("source", "mask", "present", "noise", "image")
    tensors = (*inputs, noise, image)
    arrays = {name: tensor.numpy() for name, tensor in zip(names, tensors) if tensor.numel()}
    shrink = round(inputs[0].shape[-1] / shape[-1]) if counted.shapes else 1
    return Traced(arrays, len(counted.shapes), shape[1], shrink, calls.count / ITEMS)


def _example(recipe: Recipe) -> tuple[Tensor, Tensor, Tensor]:
    """Sources, mask and presence of a few patches, whose sides are no multiples of what the network wants."""
    data = recipe.data
    depth, height, width = data.patch
    if depth == 1 and not _has_fixed_size(recipe):
        height, width = (min(side, MOST_SIDE) for side in (height, width))
        height, width = (side - side % 4 - 2 for side in (height, width))
    shape = (ITEMS, len(data.channels), depth, height, width)
    source = _normal(1, shape).mul_(0.4).clamp_(-1, 1)
    mask = torch.ones(ITEMS, 1, depth, height, width)
    mask[..., : width // 8] = 0
    if recipe.needs_mask:
        source = torch.where(mask > 0, source, torch.full((), -1.0))
    present = torch.ones(ITEMS, len(data.channels), dtype=torch.bool)
    if recipe.task.completes:
        present[0, 0], present[1, -1] = False, False
        source = torch.where(present[:, :, None, None, None], source, torch.full((), -1.0))
    return source, mask, present


def _has_fixed_size(recipe: Recipe) -> bool:
    """Whether slices have one size for the network, to which they are resized."""
    return recipe.synth.slices.resize_to is not None


def _normal(seed: int, shape: tuple[int, ...]) -> Tensor:
    count = math.prod(shape)
    return torch.from_numpy(NormalStream(seed)(max(16, count))[:count].reshape(shape))


def _trace(path: Path, sample: Sample, inputs: tuple[Tensor, ...], recipe: Recipe) -> None:
    names = ["source", "mask", "present", "noise"]
    free = {0: "batch"}
    if recipe.data.patch[0] == 1 and not _has_fixed_size(recipe):
        free |= {3: "height", 4: "width"}
    axes = {name: dict(free) for name in ("source", "mask", "image")}
    axes["present"] = {0: "batch"}
    axes["noise"] = {axis + 1: f"noise_{name}" for axis, name in free.items()}
    with warnings.catch_warnings(
        action="ignore"
    ):  # of sizes that are constants, which tests compare
        torch.onnx.export(
            sample,
            inputs,
            str(path),
            dynamo=False,  # it keeps sizes free where torch.export makes guards of them
            opset_version=OPSET,
            input_names=names,
            output_names=["image"],
            dynamic_axes=axes,
            do_constant_folding=True,
        )


@contextlib.contextmanager
def _plain_kernels() -> Iterator[None]:
    """Networks run the plain forms of their layers inside the block, which ONNX has operators for."""
    from voxlate.nets import cpu

    before = cpu.usable
    cpu.usable = lambda h: False
    try:
        yield
    finally:
        cpu.usable = before
