"""A method of torch as the network of a synthesis."""

import contextlib
import io
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from voxlate.base.arrays import Float32
from voxlate.base.config import fill
from voxlate.base.devices import find_device, name_of, single_threads
from voxlate.base.errors import BadInput
from voxlate.base.executors.job import no_report
from voxlate.base.options.check import check_value
from voxlate.base.options.table import field_types
from voxlate.science.batch import collate
from voxlate.science.diffusion.noise import Noise
from voxlate.science.diffusion.sample import SamplerSettings
from voxlate.science.methods.method import Method, networks_in
from voxlate.synthesis.facts import ModelFacts
from voxlate.synthesis.network import Calls, NoiseOf
from voxlate.synthesis.options import SynthKeys
from voxlate.synthesis.patch import Patch
from voxlate.training import recipe as recipes
from voxlate.training.batches.patches import batch_of
from voxlate.training.facts import model_facts, options_of, synth_facts
from voxlate.training.precision import autocast, of_synthesis
from voxlate.training.recipe import Recipe, Synthesis, check_synthesis, from_dict, stage_recipe
from voxlate.training.recipe.checks import HOW_TO_SAMPLE
from voxlate.training.recipe.text import apply_changes
from voxlate.training.recipe.training import Precision
from voxlate.training.run import software

TABLES = ("noise", "slices", "schedule")  # keys that hold a table, whose kind may be named alone
OF_NOISE = frozenset((*(field.name for field in fields(SamplerSettings)), "noise"))


@dataclass(frozen=True)
class TorchNetwork:
    """A method with its recipe and the header of its weights; asked: the device, as it was asked for."""

    method: Method
    recipe: Recipe
    header: Mapping[str, Any]
    device: torch.device
    asked: str

    def sample(self, patches: Sequence[Patch], noise: NoiseOf) -> Float32:
        """One sample of each patch in network units, [B, T, D, H, W]; with synth.mirror the mean with the mirrored one.

        On a CPU each thread computes its own patches: equally fast, and no thread waits on a busy machine.
        """
        count = min(torch.get_num_threads(), len(patches)) if self.device.type == "cpu" else 1
        if count > 1:
            size = -(-len(patches) // count)
            parts = [slice(start, start + size) for start in range(0, len(patches), size)]
            of_parts = [patches[part] for part in parts]
            with single_threads(count) as pool:  # there it computes its patches at once
                images = pool.map(self.sample, of_parts, map(noise.of, parts))
                return np.concatenate(list(images))
        recipe = self.recipe
        batch = collate([batch_of(patch, recipe.data) for patch in patches]).to(self.device)
        drawn = Noise(noise.seed, noise.items, noise.samples, tiles=noise.tiles)
        with torch.inference_mode(), autocast(self.device, self.precision):
            image = self.method.synthesise(batch, drawn, recipe.synth).float()
            axis = patches[0].data.axis_lr
            # a sagittal slice is its own mirror
            if recipe.synth.mirror and batch.source.shape[axis] > 1:
                flipped = replace(batch, source=batch.source.flip(axis), mask=batch.mask.flip(axis))
                mirrored = self.method.synthesise(flipped, drawn, recipe.synth).float()
                image = (image + mirrored.flip(axis)) / 2
        return image.cpu().numpy()

    def count(self, report: Callable[[int], None]) -> AbstractContextManager[Calls]:
        """Counts the evaluations of the network inside the block."""
        return count_calls(*networks_in(self.method), report=report)

    def evaluations(self, depth: int) -> float:
        """The number of evaluations for a sample of a volume of slices that is denoised in windows."""
        synth = self.recipe.synth
        windows = 1 if synth.windows is None else len(synth.windows.slices(depth))
        return synth.evaluations * windows * (2 if synth.mirror else 1)

    def mean(self) -> "tuple[ModelFacts, TorchNetwork] | None":
        """The predictor whose residual is sampled; None where there is none."""
        stage = self.recipe.task.mean_stage
        if stage is None:
            return None
        recipe = stage_recipe(self.recipe, stage)
        network = replace(self, method=self.method.predictor, recipe=recipe)
        return model_facts(recipe, self.header), network

    @property
    def precision(self) -> Precision:
        """The precision of convolutions and matrix products on this device."""
        return of_synthesis(self.recipe, self.device)

    @property
    def device_name(self) -> str:
        """The model of the GPU, or the type of the device."""
        return name_of(self.device)

    @property
    def entry(self) -> Mapping[str, Any]:
        """Empty: weights and options alone decide the images."""
        return {}

    @property
    def software(self) -> Mapping[str, Any]:
        """The versions of the packages, and the notice that it is no medical device."""
        return software()

    def with_options(
        self, facts: ModelFacts, allow_code: bool, changes: Mapping[str, Any]
    ) -> "tuple[ModelFacts, TorchNetwork]":
        """The model with other keys of synth (see `Model.with_options`); None keeps the recipe's value."""
        kinds = field_types(SynthKeys)
        stated = {}
        for name, value in changes.items():
            if value is not None:
                stated[name] = check_value(name, value, kinds[name]) if name in kinds else value
        stated = apply_changes({}, stated)
        named = (name for name in TABLES if isinstance(stated.get(name), str))
        chosen = {**stated, **{name: {"kind": stated[name]} for name in named}}
        own = vars(self.recipe.synth)
        if chosen.get("samples", 1) > 1:
            own = {**own, "sharpness": 1.0}  # the mean of several is blurred without it
        if chosen.get("sampler", own["sampler"]) != own["sampler"]:
            own = {**own, "eta": 0.0}  # eta belongs to the recipe's sampler
        code = [own["sampler"], *([chosen.get("sampler")] if allow_code else [])]
        synth = fill(Synthesis, {**own, **chosen}, "synthesis options", code=code)
        changed = self.with_synth(facts, synth)
        if not self.recipe.method.is_stochastic:
            _refuse_noise(chosen, f"'{self.recipe.title}'")
        elif synth.sharpness == 0:
            chosen.pop("sharpness", None)
            _refuse_noise(chosen, "sharpness 0")
        return changed

    def like(
        self, facts: ModelFacts, recipe: str, allow_code: bool
    ) -> "tuple[ModelFacts, TorchNetwork]":
        """The model with the synth table of another recipe, which may differ from its own in that part only."""
        other = recipes.read(recipe, allow_code=allow_code)
        if other.method != self.recipe.method:
            raise BadInput(
                f"{recipe}: expected a recipe that trains the same method ('{self.recipe.title}'), found '{other.title}'. Choose another one, or train it."
            )
        return self.with_synth(facts, other.synth)

    def with_synth(self, facts: ModelFacts, synth: Synthesis) -> "tuple[ModelFacts, TorchNetwork]":
        """The model with another synth table."""
        recipe = replace(self.recipe, synth=synth)
        check_synthesis(recipe)
        own = replace(facts, synth=synth_facts(synth), options=options_of(synth))
        return own, replace(self, recipe=recipe)

    def __reduce__(self) -> tuple[Callable[..., "TorchNetwork"], tuple[Any, ...]]:
        """Pickle the network for a worker, which loads the weights on its device of that name.

        The precision is that of this machine, because "auto" may differ elsewhere.
        """
        synth = replace(self.recipe.synth, precision=self.precision)
        written = io.BytesIO()
        torch.save(self.method.state_dict(), written)
        recipe = replace(self.recipe, synth=synth)
        return _receive, (written.getvalue(), recipe, self.header, self.asked)


def _receive(written: bytes, recipe: Recipe, header: Mapping[str, Any], asked: str) -> TorchNetwork:
    """The network on a device of this machine; the command was allowed the code outside voxlate that the model names, if any."""
    device = find_device(asked)
    # The bytes come from the command itself, which has loaded the run with its checks.
    weights: dict[str, Tensor] = torch.load(
        io.BytesIO(written), map_location=device, weights_only=True
    )
    method = from_dict(header["recipe"], "the model of this command", allow_code=True).build()
    method.load_state_dict(weights)
    method = method.eval().requires_grad_(False).to(device)
    return TorchNetwork(method, recipe, header, device, asked)


def _refuse_noise(chosen: Mapping[str, Any], what: str) -> None:
    """Raise BadInput for options of the sampling, which change nothing where no noise is drawn; what: draws none."""
    if chosen.get("samples", 1) != 1:
        raise BadInput(
            f"synth.samples: expected 1 for {what}, which draws no noise, so that all samples of a case are equal, found {chosen['samples']}. Ask for 1; {HOW_TO_SAMPLE}."
        )
    without_effect = [name for name in chosen if name in OF_NOISE]
    if without_effect:
        raise BadInput(
            f"synth.{without_effect[0]}: expected no option of the sampling for {what}, which draws no noise, found {', '.join(without_effect)}. Leave it out; {HOW_TO_SAMPLE}."
        )


@contextlib.contextmanager
def count_calls(*nets: nn.Module, report: Callable[[int], None] = no_report) -> Iterator[Calls]:
    """Count the evaluations of networks inside the block, without changing their results. report: gets the count."""
    calls = Calls()
    lock = threading.Lock()

    def _count(_: nn.Module, __: Any, output: Any) -> None:
        with lock:
            calls.count += len(output.image)
            report(calls.count)

    hooks = [net.register_forward_hook(_count) for net in nets]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()
