"""Trained models, as runs hold them: their facts, and their networks of torch."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from voxlate.base.devices import find_device
from voxlate.base.errors import BadInput
from voxlate.base.hub import is_on_hub
from voxlate.checks.anatomy import read_anatomy
from voxlate.synthesis.calibration import Answer
from voxlate.synthesis.ensemble import Ensemble
from voxlate.synthesis.model import Model
from voxlate.synthesis.scans import merge_splits
from voxlate.training.calibration_file import RunCalibrations
from voxlate.training.facts import model_facts
from voxlate.training.network import TorchNetwork
from voxlate.training.recipe import from_dict
from voxlate.training.recipe.checks import HOW_TO_SAMPLE
from voxlate.training.recipe.provenance import data_of_training
from voxlate.training.run import Run, weights_of
from voxlate.training.starter import load_run, run_folder
from voxlate.training.starters.names import is_starter
from voxlate.training.weights import file_hash, read_header


def load(
    run: Path | str,
    device: str = "auto",
    allow_code: bool = False,
    answer: Answer | None = None,
) -> Model:
    """Open a run folder, a weights file, starter:NAME or hf://NAME/REPO for synthesis; raises BadInput if it is none.

    allow_code: import, and thereby run, the code outside voxlate that the model names. answer: "mean" opens the
    predictor of a run that samples its predictor's residual, "sample" and None its last stage; raises BadInput where
    the run has no such answer.
    """
    path = _stage_path(run_folder(run), answer, allow_code)
    method, recipe, header = load_run(run if is_starter(run) else path, allow_code)
    if (
        not recipe.method.makes_targets
    ):  # an autoencoder alone, whose inputs are the images that it reconstructs
        recipe = replace(recipe, data=replace(recipe.data, source=recipe.data.target, stack=0))
    chosen = find_device(device)
    # a weights file of a hub's cache is a link, beside which the other files are
    origin = path.resolve() if path.is_dir() else path.parent.resolve() / path.name
    folder = origin if origin.is_dir() else origin.parent
    header["weights_hash"] = file_hash(weights_of(path))
    anatomy_file = Run(folder).anatomy
    anatomy = read_anatomy(anatomy_file, recipe.intensity) if anatomy_file.is_file() else None
    trained_on = data_of_training([folder])
    splits = merge_splits(
        dict.fromkeys(cases, split) for split, cases in trained_on.get("splits", {}).items()
    )
    facts = model_facts(recipe, header, splits, "fold" in trained_on)
    network = TorchNetwork(method.to(chosen), recipe, header, chosen, device)
    own_samples = (header["recipe"].get("synth") or {}).get("samples", 1)
    return Model(facts, network, origin, anatomy, RunCalibrations(folder, own_samples))


def network_of(model: Model) -> TorchNetwork:
    """The network of a model that `load` has opened."""
    assert isinstance(model.network, TorchNetwork), "a model of a run"
    return model.network


def _stage_path(path: Path, answer: Answer | None, allow_code: bool) -> Path:
    """The run itself, or the weights file of the stage that gives this answer."""
    weights = weights_of(path)
    if answer is None or not weights.exists():
        return path
    if answer not in get_args(Answer):
        raise BadInput(
            f"answer: expected 'mean' or 'sample', found {answer!r}. Choose one of these."
        )
    recipe = from_dict(read_header(weights)["recipe"], f"{weights} (header)", allow_code)
    if answer == "sample" and not recipe.method.is_stochastic:
        raise BadInput(
            f"{path}: expected a model that draws samples for the answer 'sample', found '{recipe.title}', which makes one image of a case. Ask for the answer 'mean', or for none; {HOW_TO_SAMPLE}."
        )
    if answer == "sample" or not recipe.method.is_stochastic:
        return path
    stage = recipe.task.mean_stage
    if stage is None:
        raise BadInput(
            f"{path}: expected a model with a predictor for the answer 'mean', found '{recipe.title}', which has none. Take the mean of its samples instead: --samples 10 (in Python: samples=10)."
        )
    return Run(path if path.is_dir() else path.parent).weights(stage)


def load_members(
    runs: Sequence[Path | str],
    device: str = "auto",
    allow_code: bool = False,
    answer: Answer | None = None,
) -> Model:
    """Open a run or weights file, or several as an ensemble; raises BadInput (see model.load)."""
    models = tuple(load(run, device, allow_code, answer) for run in runs)
    return models[0] if len(models) == 1 else Ensemble(models).without_intervals()


def members_and_scans(inputs: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Split arguments into the runs and weights files at their beginning, and the rest, which names scans."""
    models = [*itertools.takewhile(_is_model, map(Path, inputs))]
    if len(models) == len(inputs):
        raise BadInput(
            f"INPUT: expected scans after the runs, found {', '.join(inputs) or 'nothing'} alone. Add a cohort."
        )
    return models, list(inputs[len(models) :])


def _is_model(path: Path) -> bool:
    """Whether a path is a weights file, a starter, a model of a hub, or the folder of a run, finished or not."""
    if is_starter(path) or is_on_hub(path):
        return True
    if path.is_dir():
        return Run(path).recipe.is_file() or Run(path).weights().is_file()
    return path.suffix == ".safetensors" and path.is_file()
