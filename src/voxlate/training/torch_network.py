"""A run as a model of synthesis: its method of torch as the network, and the facts that its recipe and weights state."""

import contextlib
import io
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from voxlate.base.array_types import Float32
from voxlate.base.config import adapter, check_options, fill
from voxlate.base.devices import find_device, name_of, single_threads
from voxlate.base.errors import BadInput
from voxlate.base.files import file_hash, write_json
from voxlate.base.option import parameters_of
from voxlate.scans.formats.format import errors_as
from voxlate.science.batch import collate
from voxlate.science.diffusion.noise import SynthesisNoise
from voxlate.science.diffusion.sample import SamplerSettings
from voxlate.science.methods.method import Method, networks_in
from voxlate.synthesis.calibration import Answer
from voxlate.synthesis.exported import is_exported
from voxlate.synthesis.facts import ModelFacts, SynthFacts
from voxlate.synthesis.model import Model
from voxlate.synthesis.patch import Patch
from voxlate.synthesis.sampling import Calls, NoiseOf
from voxlate.synthesis.scan_checks import read_known_scans
from voxlate.synthesis.scans import merge_splits
from voxlate.synthesis.synth_options import SynthKeys
from voxlate.training import recipe as recipes
from voxlate.training.batches.patches import batch_of
from voxlate.training.calibration_file import RunCalibrations
from voxlate.training.precision import autocast, of_synthesis
from voxlate.training.recipe import Recipe, Synthesis, check_synthesis, from_dict, stage_recipe
from voxlate.training.recipe.reading import HOW_TO_SAMPLE
from voxlate.training.recipe.run_provenance import data_of_training
from voxlate.training.recipe.text import apply_changes
from voxlate.training.recipe.training_settings import Precision
from voxlate.training.run import Run, of_a_run, software, weights_of
from voxlate.training.starters.card import read_card
from voxlate.training.starters.names import FACTS, PREFIX, folder_of, run_folder, starter_names
from voxlate.training.weights import load_method, read_header

# Facts of a model by their names in its recipe, in the recipe's method, and in the header of its weights.
OF_RECIPE = ("title", "intensity", "needs_mask", "ignores_outside", "multiple")
OF_METHOD = ("is_stochastic", "shows_doubt", "makes_targets", "trained_steps")
NOT_IN_EVERY_HEADER: dict[str, Any] = {
    "target_widths": {},
    "preparation": {},
    "training_ranges": {},
    "training_spacing_mm": None,
    "training_ml": 0.0,
    "bound": {},
    "worse": {},
}
OF_HEADER = ("weights_hash", "steps", "units", "target_scales", *NOT_IN_EVERY_HEADER)
OF_NOISE = {*(field.name for field in fields(SamplerSettings)), "noise", "samples"}


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
        drawn = SynthesisNoise(noise.seed, noise.items, noise.samples, tiles=noise.tiles)
        with torch.inference_mode(), autocast(self.device, self.precision):
            image = self.method.synthesise(batch, drawn, recipe.synth).float()
            axis = patches[0].data.axis_lr
            # a sagittal slice is its own mirror
            if recipe.synth.mirror and batch.source.shape[axis] > 1:
                flipped = replace(batch, source=batch.source.flip(axis), mask=batch.mask.flip(axis))
                mirrored = self.method.synthesise(flipped, drawn, recipe.synth).float()
                image = (image + mirrored.flip(axis)) / 2
        return image.cpu().numpy()

    def count(self) -> AbstractContextManager[Calls]:
        """Counts the evaluations of the network inside the block."""
        return count_calls(self.method)

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
        self, facts: ModelFacts, allow_code: bool, like: str | None, given: Mapping[str, Any]
    ) -> "tuple[ModelFacts, TorchNetwork]":
        """The model with other keys of synth, or those of the recipe `like` (see `Model.with_options`)."""
        stated = self.recipe.synth
        if like is not None:
            other = recipes.read(like, allow_code=allow_code)
            if other.method != self.recipe.method:
                raise BadInput(
                    f"{like}: expected a recipe that trains the same method ('{self.recipe.title}'), found '{other.title}'. Choose another one, or train it."
                )
            stated = other.synth
        typed = {name: given[name] for name in given.keys() & parameters_of(SynthKeys).keys()}
        checked = check_options(SynthKeys, typed)
        chosen = apply_changes({}, {name: checked.get(name, given[name]) for name in given})
        own = dict(vars(stated))
        if chosen.get("samples", 1) > 1:
            own["sharpness"] = 1.0  # the mean of several is blurred without it
        if chosen.get("sampler", own["sampler"]) != own["sampler"]:
            own["eta"] = 0.0  # eta belongs to the recipe's sampler
        code = [own["sampler"], *([chosen.get("sampler")] if allow_code else [])]
        synth = fill(Synthesis, own | chosen, "synthesis options", code=code)
        changed = self.with_synth(facts, synth)
        draws = self.recipe.method.is_stochastic and synth.sharpness > 0
        one = ("samples", 1)
        unfit = [key for key, value in chosen.items() if key in OF_NOISE and (key, value) != one]
        if unfit and not draws:
            raise BadInput(
                f"synth.{unfit[0]}: expected no option of the sampling for '{self.recipe.title}', which draws no noise with sharpness {synth.sharpness:g}, found {', '.join(unfit)}. Leave it out; {HOW_TO_SAMPLE}."
            )
        return changed

    def with_synth(self, facts: ModelFacts, synth: Synthesis) -> "tuple[ModelFacts, TorchNetwork]":
        """The model with another synth table."""
        recipe = replace(self.recipe, synth=synth)
        check_synthesis(recipe)
        own = replace(facts, synth=synth_facts(synth), options=options_of(synth))
        return own, replace(self, recipe=recipe)

    def __reduce__(self) -> tuple[Callable[..., "TorchNetwork"], tuple[Any, ...]]:
        """Pickle the network for a worker, which computes on its device of that name.

        The precision is that of this machine, because "auto" may differ elsewhere.
        """
        synth = replace(self.recipe.synth, precision=self.precision)
        written = io.BytesIO()
        torch.save(self.method.state_dict(), written)
        recipe = replace(self.recipe, synth=synth)
        return _receive, (written.getvalue(), recipe, self.header, self.asked)


def _receive(written: bytes, recipe: Recipe, header: Mapping[str, Any], asked: str) -> TorchNetwork:
    """The network on a device of this machine."""
    device = find_device(asked)
    method = recipe.build().eval().requires_grad_(False).to(device)
    method.load_state_dict(torch.load(io.BytesIO(written), device, weights_only=True))
    return TorchNetwork(method, recipe, header, device, asked)


@contextlib.contextmanager
def count_calls(method: nn.Module) -> Iterator[Calls]:
    """Count the evaluations of a method's networks inside the block, without changing their results."""
    calls = Calls()
    lock = threading.Lock()

    def _count(_: nn.Module, __: Any, output: Any) -> None:
        with lock:
            calls.count += len(output.image)

    hooks = [net.register_forward_hook(_count) for net in networks_in(method)]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def open_run(run: Path | str, device: str, allow_code: bool, answer: Answer | None) -> Model:
    """The model of a run folder, a weights file, starter:NAME or hf://NAME/REPO (see load.load)."""
    path = _stage_path(run_folder(run), answer, allow_code)
    method, recipe, header = load_method(path, allow_code)
    if not recipe.method.makes_targets:  # an autoencoder's inputs are the images that it makes
        recipe = replace(recipe, data=replace(recipe.data, source=recipe.data.target, stack=0))
    # a weights file of a hub's cache is a link, beside which the other files are
    origin = path.resolve() if path.is_dir() else path.parent.resolve() / path.name
    folder = origin if origin.is_dir() else origin.parent
    header["weights_hash"] = file_hash(weights_of(path))
    anatomy = Run(folder).anatomy
    known = read_known_scans(anatomy) if anatomy.is_file() else None
    what = f"{path}: expected the facts of a model in the header of its weights, found others"
    with errors_as(what, "Copy or train it again."):
        facts = model_facts(recipe, header, data_of_training([folder]))
    chosen = find_device(device)
    network = TorchNetwork(method.to(chosen), recipe, header, chosen, device)
    return Model(facts, network, origin, known, RunCalibrations(folder))


def write_facts(folder: Path) -> None:
    """Write what a check asks of a starter or run beside its weights (see load.load)."""
    facts = open_run(folder, "cpu", allow_code=True, answer=None).facts
    write_json(folder / FACTS, adapter(ModelFacts).dump_python(facts, mode="json"))


def network_of(model: Model) -> TorchNetwork:
    """The network in torch of a run that `load` has opened; raises BadInput for an exported model."""
    if not isinstance(model.network, TorchNetwork) and not is_exported(model.origin):
        # the graph of a run, whose weights torch reads, too
        model = open_run(model.origin, "cpu", allow_code=False, answer=None)
    if not isinstance(model.network, TorchNetwork):
        raise of_a_run(model.origin)
    return model.network


def _stage_path(path: Path, answer: Answer | None, allow_code: bool) -> Path:
    """The run itself, or the weights file of the stage that gives this answer."""
    weights = weights_of(path)
    if answer is None or not weights.exists():
        return path
    recipe = from_dict(read_header(weights)["recipe"], f"{weights} (header)", allow_code)
    if answer == ("sample" if recipe.method.is_stochastic else "mean"):
        return path
    stage = recipe.task.mean_stage
    if answer == "sample" or stage is None:
        advice = "Take the mean of its samples: --samples 10"
        if answer == "sample":
            advice = f"Ask for 'mean', or for none; {HOW_TO_SAMPLE}"
        raise BadInput(
            f"{path}: expected a model that gives the answer '{answer}', found '{recipe.title}', which does not. {advice}."
        )
    return Run(path if path.is_dir() else path.parent).weights(stage)


def model_facts(
    recipe: Recipe, header: Mapping[str, Any], trained_on: Mapping[str, Any] | None = None
) -> ModelFacts:
    """What a synthesis needs to know of a model; trained_on: the data of the training, by its provenance."""
    data = trained_on or {}
    splits = merge_splits(
        dict.fromkeys(cases, split) for split, cases in data.get("splits", {}).items()
    )
    starter = header.get("starter")
    accepts = {name: [name] for name in recipe.data.source}
    accepts |= {name: list(names) for name, names in (starter or {}).get("accepts", {}).items()}
    stated = {name: getattr(recipe, name) for name in OF_RECIPE}
    stated |= {name: getattr(recipe.method, name) for name in OF_METHOD}
    stated |= NOT_IN_EVERY_HEADER | {name: header[name] for name in OF_HEADER if name in header}
    stated |= {
        "data": recipe.data.facts,
        "synth": synth_facts(recipe.synth),
        "options": options_of(recipe.synth),
        "completes": recipe.task.completes,
        "accepts": accepts,
        "starter": starter and _of_starter(starter),
        "imported": "imported" in header,
        "was_calibrated": bool(header.get("adapted", {}).get("calibrated")),
        "seen_voxels": header.get("training_voxels", []),
        "splits": splits,
        "of_fold": "fold" in data,
    }
    facts: ModelFacts = adapter(ModelFacts).validate_python(stated)
    return facts


def _of_starter(starter: Mapping[str, Any]) -> dict[str, Any]:
    """What a starter states of itself, with the limits and errors on its card if this package has it."""
    stated = {key: starter[key] for key in ("name", "trained_on")}
    if PREFIX + starter["name"] not in starter_names():
        return stated
    card = read_card(folder_of(starter["name"]))
    limits = {"target_limits": card.target_limits, "measured": card.errors}
    return stated | limits | {"intervals": card.on_intervals}


def synth_facts(synth: Synthesis) -> SynthFacts:
    """How a recipe samples patches and joins them."""
    names = {field.name for field in fields(SynthFacts)} - {"in_windows"}
    own = {name: getattr(synth, name) for name in names}
    return SynthFacts(in_windows=synth.windows is not None, **own)


def options_of(synth: Synthesis) -> dict[str, Any]:
    """The keys that decide the images, as plain values; the batch size decides roundings alone."""
    options = adapter(Synthesis).dump_python(synth, mode="json")
    others = ("batch", "precision", "keep_states")
    return {key: value for key, value in options.items() if key not in others}
