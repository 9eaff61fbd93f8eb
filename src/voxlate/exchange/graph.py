"""A method's synthesis of one sample as a graph of ONNX: network, mean stage and all steps of its sampler."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from voxlate.base.config import adapter
from voxlate.base.errors import BadInput
from voxlate.base.files import file_hash, sha256_of, whole_file, write_json
from voxlate.scans.cases.case import map_arrays
from voxlate.science.batch import Batch
from voxlate.science.methods.method import Method
from voxlate.synthesis.exported import NETWORK, Graph, open_session, threads
from voxlate.training.recipe import Recipe, stage_recipe
from voxlate.training.run import weights_of
from voxlate.training.run_graph import GRAPH, GraphOfWeights
from voxlate.training.torch_network import count_calls
from voxlate.training.weights import load_method

OPSET = 17  # which onnxruntime-web runs in WASM and WebGPU, too
# largest sides of the slices that are traced, and of those that show whether sizes stayed free
SIDES = 158, 106
UNEVEN = 16  # sides are one more than a multiple: halved four times, each is uneven
ITEMS = 2, 3  # that are traced, and that show whether their number stayed free
# of a tensor that a graph takes from its weights; smaller ones are in the graph
FEWEST_NUMBERS = 256
INPUTS = ["source", "mask", "present", "noise"]


class GivenNoise:
    """Noise that is an input: the draws of one sample, in their order, [draws, B, C, D, H, W]."""

    def __init__(self, draws: Tensor) -> None:
        self.draws = draws
        self.count = 0

    def __call__(self, x: Tensor) -> Tensor:
        """The next draw."""
        self.count += 1
        return self.draws[self.count - 1]


class CountedNoise:
    """Noise of zeros, which counts its draws and keeps their shape."""

    def __init__(self) -> None:
        self.shapes = list[torch.Size]()

    def __call__(self, x: Tensor) -> Tensor:
        """Zeros."""
        self.shapes.append(x.shape)
        return torch.zeros_like(x)


class Sample(nn.Module):
    """One sample of patches as a function of arrays."""

    def __init__(self, method: Method, recipe: Recipe) -> None:
        super().__init__()
        self.method = method.without_opponent
        self.recipe = recipe
        self.mean: Sample | None = None
        stage = recipe.task.mean_stage
        if stage is not None and recipe.synth.sharpness < 1:
            self.mean = Sample(self.method.predictor, stage_recipe(recipe, stage))

    def forward(self, source: Tensor, mask: Tensor, present: Tensor, noise: Tensor) -> Tensor:
        """The images [B, T, D, H, W]; noise: [draws, B, C, D, H, W]."""
        return self.of(source, mask, present, GivenNoise(noise))

    def of(self, source: Tensor, mask: Tensor, present: Tensor, noise: Any) -> Tensor:
        """The images of patches, with synth.mirror their mean with the mirrored ones, and with synth.sharpness on the way from the mean."""
        data, synth = self.recipe.data, self.recipe.synth
        nothing = torch.zeros(1, 1, dtype=torch.int64)  # synthesis reads no ids: its noise is given
        batch = Batch(
            source,
            mask,
            present,
            nothing,
            source_names=data.source_names,
            target_names=tuple(data.target),
        )
        image = self.method.synthesise(batch, noise, synth).float()
        axis = data.axis_lr
        if synth.mirror and source.shape[axis] > 1:
            flipped = replace(batch, source=source.flip(axis), mask=mask.flip(axis))
            mirrored = self.method.synthesise(flipped, noise, synth).float()
            image = (image + mirrored.flip(axis)) / 2
        if self.mean is not None:
            mean, image = (
                each.clamp(-1, 1) for each in (self.mean.of(source, mask, present, noise), image)
            )  # as synthesis clips each
            image = mean + synth.sharpness * (image - mean)
        return image


Arrays = dict[str, np.ndarray]


def write_tested_graph(path: Path, method: Method, recipe: Recipe) -> tuple[Graph, Arrays]:
    """Write a method's synthesis of a patch as ONNX, and measure its loss against torch's float32 (see write_graph).

    Returns the graph, and inputs with torch's image.
    """
    in_plane = replace(recipe, data=recipe.data.by_plane[0])
    single = recipe.method.is_stochastic  # constants of its steps have the shape of the batch
    graph, examples = write_graph(path, method, in_plane, single)
    if not single:
        try:  # whether it takes patches in another number and size than those by which it was traced
            _loss(path, examples)
        except Exception:  # onnxruntime has an exception of its own for each kind of failure
            graph, examples = write_graph(path, method, in_plane, single=True)
    return replace(graph, largest_loss=_loss(path, examples)), examples[0]


def _loss(path: Path, examples: Sequence[Arrays]) -> float:
    """The largest distance of the graph's images from torch's."""
    session = open_session(path.read_bytes(), threads())
    names = [wanted.name for wanted in session.get_inputs()]
    largest = 0.0
    for given in examples:
        (image,) = session.run(["image"], {name: given[name] for name in names})
        largest = max(largest, float(np.abs(image - given["image"]).max()))
    return largest


def write_run_graph(folder: Path) -> GraphOfWeights:
    """Write the graph of a run or starter beside its weights, whose tensors it takes (see training.run_graph)."""
    import onnx

    method, recipe, _ = load_method(folder)
    weights = weights_of(folder)
    path = folder / NETWORK
    with whole_file(path) as new:
        graph, _ = write_tested_graph(new, method, recipe)
        model = onnx.load(new)
        tensors = _taken_out(model, map_arrays(weights))
        new.write_bytes(model.SerializeToString())
    stated = GraphOfWeights(
        replace(graph, file=NETWORK), sha256_of(path), file_hash(weights), tensors
    )
    write_json(folder / GRAPH, adapter(GraphOfWeights).dump_python(stated, mode="json"))
    return stated


def _taken_out(model: Any, weights: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Take out of a graph the numbers of initialisers that are tensors of the weights; the tensors by initialiser."""
    from onnx import TensorProto, numpy_helper

    known = {_key(array): name for name, array in weights.items()}
    tensors = {}
    for one in model.graph.initializer:
        array = numpy_helper.to_array(one)
        if one.data_type != TensorProto.FLOAT or array.size < FEWEST_NUMBERS:
            continue
        if (name := known.get(_key(array))) is None:
            continue
        tensors[one.name] = name
        one.ClearField("raw_data")
        one.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "weights.safetensors"), ("length", str(array.nbytes))):
            one.external_data.add(key=key, value=value)
    return tensors


def _key(array: np.ndarray) -> tuple[tuple[int, ...], bytes]:
    """The shape and the numbers of a tensor as float32."""
    return array.shape, array.astype(np.float32).tobytes()


def write_graph(
    path: Path, method: Method, recipe: Recipe, single: bool
) -> tuple[Graph, list[Arrays]]:
    """Trace a method's synthesis by a small example, and write it as ONNX.

    single: for one patch at a time. Returns the graph, whose loss is not known yet, and its inputs and torch's image for
    two examples of another number and size. Raises BadInput for what no graph of fixed steps does.
    """
    synth = recipe.synth
    if math.isinf(synth.evaluations) and recipe.method.iterates:
        raise BadInput(
            f"synth.sampler: expected a sampler of a fixed number of steps, found {synth.sampler}, which chooses its own. Train with another one in [synth], such as ddim, or synthesise with the run itself."
        )
    if synth.windows is not None:
        raise BadInput(
            "synth.windows: expected none in a model that runs without torch, found windows of slices, which the layers along depth of this network join. Synthesise with the run itself."
        )
    sample = Sample(method, recipe).eval()
    with torch.no_grad():
        inputs = _example(recipe, SIDES[0], 1 if single else ITEMS[0])
        counted = CountedNoise()
        with count_calls(sample.method) as calls:
            sample.of(*inputs, counted)
        draws = len(counted.shapes)
        shape = counted.shapes[0] if draws else torch.Size((1, 1, 1, 1, 1))
        noise = _normal(3, (draws, *shape))
        _trace(path, sample, (*inputs, noise), recipe, single)
        _fold_constants(path)
        further = _example(recipe, SIDES[1], 1 if single else ITEMS[1], uneven=False)
        shrink = 1  # noise of latents, whose sides are rounded up
        while draws and shrink * shape[-1] < inputs[0].shape[-1]:
            shrink *= 2
        sides = (-(-side // shrink) for side in further[0].shape[-2:])
        other = _normal(4, (draws, len(further[0]), *shape[1:-2], *sides))
        examples = [_arrays_of(sample, inputs, noise), _arrays_of(sample, further, other)]
    evaluations = calls.count / len(inputs[0])
    return Graph(path.name, single, draws, shape[1], shrink, evaluations, 0.0), examples


def _arrays_of(sample: Sample, inputs: tuple[Tensor, Tensor, Tensor], noise: Tensor) -> Arrays:
    """The inputs and torch's image by the graph's names; arrays without numbers are left out."""
    tensors = (*inputs, noise, sample(*inputs, noise))
    named = zip([*INPUTS, "image"], tensors)
    return {name: tensor.numpy() for name, tensor in named if tensor.numel()}


def _example(
    recipe: Recipe, most: int, items: int, uneven: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Sources, mask and presence of patches; free slices may have uneven sides, also of their latents, so that padding is traced."""
    data = recipe.data
    depth, height, width = data.patch
    if recipe.synth.slices.resize_to is not None:
        height, width = recipe.synth.slices.resize_to
    elif depth == 1:
        height, width = min(height, most), min(width, most - 16)
        height, width = (
            max(side - 1, UNEVEN) // UNEVEN * UNEVEN + uneven for side in (height, width)
        )
    shape = (items, len(data.channels), depth, height, width)
    source = _normal(1, shape).mul_(0.4).clamp_(-1, 1)
    mask = torch.ones(items, 1, depth, height, width)
    mask[..., : width // 8] = 0
    if recipe.needs_mask:
        source = torch.where(mask > 0, source, torch.full((), -1.0))
    present = torch.ones(items, len(data.channels), dtype=torch.bool)
    if recipe.task.completes:
        present[-1, 0] = False
        present[0, -1] = False
        source = torch.where(present[:, :, None, None, None], source, torch.full((), -1.0))
    return source, mask, present


def _normal(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers, the same at each export."""
    generator = np.random.Generator(np.random.Philox(key=seed))
    return torch.from_numpy(generator.standard_normal(shape, np.float32))


def _trace(
    path: Path, sample: Sample, inputs: tuple[Tensor, ...], recipe: Recipe, single: bool
) -> None:
    free = {} if single else {0: "batch"}
    if recipe.data.patch[0] == 1 and recipe.synth.slices.resize_to is None:
        free |= {3: "height", 4: "width"}
    axes = {name: dict(free) for name in ("source", "mask", "image")}
    axes["present"] = {} if single else {0: "batch"}
    axes["noise"] = {axis + 1: f"noise_{name}" for axis, name in free.items()}
    # of sizes that are constants, which tests compare
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            sample,
            inputs,
            str(path),
            dynamo=False,  # it keeps sizes free where torch.export makes guards of them
            opset_version=OPSET,
            input_names=INPUTS,
            output_names=["image"],
            dynamic_axes=axes,
            do_constant_folding=True,
        )


def _fold_constants(path: Path) -> None:
    """Compute what depends on no input: schedules are float64, which not every runtime has operators for."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3  # errors alone
    onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    model = onnx.load(path)
    # a runtime in a browser knows no other operators, of which none is used
    own = [operators for operators in model.opset_import if not operators.domain]
    del model.opset_import[:]
    model.opset_import.extend(own)
    onnx.save(model, str(path))
