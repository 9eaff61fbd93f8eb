"""Weights files: a whole model as one safetensors file with its recipe, units and provenance in the header."""

import copy
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain, product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from voxlate.base.config import kind_of, to_tables
from voxlate.base.errors import BadInput
from voxlate.base.files import whole_file
from voxlate.base.messages import Message, message
from voxlate.base.records import Record, checksum, write_tensors
from voxlate.scans.cases.case import DIGITS
from voxlate.scans.cases.prepared import Cohort
from voxlate.scans.formats.format import KeptByFile
from voxlate.science.methods.method import Method
from voxlate.synthesis.scan_checks import training_ranges
from voxlate.training.batches.data_settings import training_cases
from voxlate.training.recipe import FullStage, Recipe, code_of, from_dict, to_dict
from voxlate.training.recipe.text import first_change, stored_recipe
from voxlate.training.run import Run, software, weights_of

DRAWS = 256  # of data.physics over all cases, from which the range of training intensities is taken
Loaded = tuple[Method, Recipe, dict[str, Any]]  # with the header
HALF = (torch.float16, torch.bfloat16)


def make_header(
    recipe: Recipe, method: nn.Module, cohort: Cohort, steps: int, seconds: float
) -> dict[str, Any]:
    """The header of a weights file: all data that synthesis needs in addition to the tensors."""
    data, maps = recipe.data, recipe.intensity
    cases = training_cases(cohort, data)  # other cases may have another scale
    scales = {name: cohort.target_scale(maps[name], name, cases) for name in data.target}
    plain = to_dict(recipe)
    draws = max(1, DRAWS // len(cases))
    drawn = list(chain.from_iterable(cohort.headers_of_draws(case, draws) for case in cases))
    # a case that no stage can use may have other scans of a patient who trains
    seen = [*map(cohort.header, cohort.splits["train"])]
    return {
        "recipe": plain,
        **({"imports": needed} if (needed := code_of(plain)) else {}),
        "units": {name: cohort.units[name] for name in data.modalities},
        "target_scales": {name: [scale.low, scale.high] for name, scale in scales.items()},
        "target_widths": {name: cohort.target_widths(maps[name], name, cases) for name in scales},
        "preparation": asdict(cohort.preparation),
        "training_ranges": training_ranges(drawn, {name: maps[name] for name in data.source}),
        "training_spacing_mm": cohort.median("spacing_mm"),
        "parameters": sum(parameter.numel() for parameter in method.parameters()),
        "steps": steps,
        "seconds": seconds,
        "training_cases": len(seen),
        "training_ml": cohort.median("mask_ml"),
        "training_voxels": [
            header.voxels[name][:DIGITS]
            for header, name in product(seen, data.modalities)
            if name in header.visible
        ],
        "made_by": software(),
    }


def save_weights(path: Path, method: nn.Module, header: Mapping[str, Any]) -> None:
    """Write the weights of a method with this header; raises BadInput if a weight is not finite."""
    firsts = _first_names(method)
    tensors = {name: tensor for name, tensor in method.state_dict().items() if firsts[name] == name}
    write_weights(path, tensors, header)


def write_weights(path: Path, tensors: dict[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors as a weights file with this header, to which the checksum is added."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise BadInput(
                f"{path}: expected finite weights, found others in '{name}'. Train with a lower train.optimiser.lr, or download them again."
            )
    text = json.dumps({**header, "sha256": weights_checksum(header, tensors)})
    write_tensors(path, tensors, {"voxlate": text})


def weights_checksum(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """The checksum of a weights file: of its header without the entry of the checksum itself, and of its tensors."""
    plain = {key: value for key, value in header.items() if key != "sha256"}
    return checksum(json.dumps(plain, sort_keys=True), tensors)


def read_header(path: Path) -> dict[str, Any]:
    """The header of a weights file; raises BadInput if voxlate did not write the file, or if it was changed."""
    return copy.deepcopy(_header_once(path))


def _read_header(path: Path) -> dict[str, Any]:
    """The header of a file that was compared with its checksum."""
    return _read(path)[0]


_header_once = KeptByFile(_read_header, 64)  # in each process


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file (see `_read`)."""
    return _read(path)[1]


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the tensors of a weights file; raises BadInput where one of them is not as it was saved.

    Tensors that were packed in half precision are returned in float32, which holds their values exactly.
    """
    record = Record(path, "a trained model (voxlate train makes one)", "Copy or train it again.")
    with record.tensors("pt") as file:
        header: dict[str, Any] = record.table(file.text("voxlate"))
        record.check_version(header, "made_by", "voxlate")
        tensors = file.arrays
    record.check_checksum(header.get("sha256", ""), weights_checksum(header, tensors))
    for name, tensor in tensors.items():
        if tensor.dtype in HALF:
            tensors[name] = tensor.float()
    return {**header, "recipe": stored_recipe(header["recipe"])}, tensors


def load_weights(method: nn.Module, path: Path) -> None:
    """Load weights into a method; raises BadInput with the first tensor that is missing, unknown or of another shape."""
    _fill(method, read_weights(path), path)


def _fill(method: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load the tensors of a file into a method (see `load_weights`)."""
    firsts = _first_names(method).items()
    shared = {name: tensors[first] for name, first in firsts if first in tensors}
    try:
        method.load_state_dict({**shared, **tensors})
    except RuntimeError as error:
        _, *differences = str(error).splitlines()
        raise BadInput(
            f"{path}: expected weights of this recipe, found another's ({' '.join(differences).strip():.200}). Use the weights with the recipe they were trained by."
        ) from error


def _first_names(method: nn.Module) -> dict[str, str]:
    """The first name of each tensor of a method: modules may share tensors, which a file holds once."""
    firsts = dict[int, str]()
    named = method.state_dict(keep_vars=True).items()
    return {name: firsts.setdefault(id(tensor), name) for name, tensor in named}


def load_method(path: Path, allow_code: bool = False) -> Loaded:
    """The finished method of a run folder or weights file, its recipe and its header.

    allow_code: import the code outside voxlate that the model names; without it such a model is refused.
    """
    weights = weights_of(path)
    if path.is_dir() and not weights.exists():
        unfinished = "a training that is not finished (run the same train command to resume)"
        state = unfinished if Run(path).state.exists() else "none"
        raise BadInput(
            f"{path}: expected a run with weights.safetensors, found {state}. Train it to its end, or choose another."
        )
    header, tensors = _read(weights)
    recipe = from_dict(header["recipe"], f"{weights} (header)", allow_code)
    if "sharpness" in header:
        chosen = replace(recipe.synth, sharpness=header["sharpness"], gradient_ratio=None)
        recipe = replace(recipe, synth=chosen)
    method = recipe.build()
    _fill(method, tensors, weights)
    return method.eval().requires_grad_(False), recipe, header


def copy_model(folder: Path, out: Path, name: Path | str) -> Path:
    """Copy a starter or a model of a hub into a folder of the user, which is then an ordinary run; an equal copy is kept.

    Raises BadInput if the folder holds other files.
    """
    weights = weights_of(folder)
    copied = Run(out).weights()
    if copied.exists() and read_header(copied)["sha256"] == read_header(weights)["sha256"]:
        return out
    if out.exists() and any(out.iterdir()):
        raise BadInput(
            f"{out}: expected an empty folder or a copy of {name}, found other files. Choose another --out."
        )
    out.mkdir(parents=True, exist_ok=True)
    run = Run(folder)
    stages = (file for file in sorted(folder.glob("weights.*.safetensors")) if file != weights)
    for file in (run.recipe, run.anatomy, *stages, weights):  # the weights make it a run
        if file.is_file():
            shutil.copyfile(file, out / file.name)
    return out


def runs_of(folders: Sequence[Path | str]) -> list[Run]:
    """The runs from which stages are taken; raises BadInput if one of them is no run."""
    runs = [Run(Path(folder)) for folder in folders]
    for run in runs:
        if not run.provenance.exists():
            raise BadInput(
                f"{run.folder}: expected a run to take stages from, found no provenance.json. Name a run."
            )
    return runs


def reuse_weights(
    run: Run, others: Sequence[Run], recipe: Recipe, stage: FullStage
) -> Iterator[Message]:
    """Copy the weights of a stage from the first other run with the same recipe and data.

    recipe: that of the run up to this stage. Gives a message for each other run: that its weights are used, or the
    reason against it. A pretrained autoencoder is only named, because its latents' scale is still to be found.
    """
    for other in others:
        imported = is_imported(other)
        if imported and stage.method.makes_targets:
            continue
        change = unfit_network(other, stage) if imported else _difference(run, other, recipe, stage)
        if not change:
            if not imported:
                with whole_file(run.weights(stage.name)) as temporary:
                    shutil.copyfile(other.weights(stage.name), temporary)
            yield message("stage-reused", f"stage '{stage.name}' is taken from {other.folder}.")
            return
        text = f"stage '{stage.name}' is not taken from {other.folder}: {change}."
        yield message("stage-not-reused", text)


def _difference(run: Run, other: Run, recipe: Recipe, stage: FullStage) -> str:
    """The reason against the weights of another run; "" if they can be used."""
    ours, theirs = (each.origin["data"] for each in (run, other))
    if any(theirs.get(key) != ours.get(key) for key in ("cohort", "splits")):
        return "it saw other cases"
    weights = other.weights(stage.name)
    if not weights.exists():
        return f"it has no finished stage '{stage.name}'"
    trained = read_header(weights)["recipe"]
    # neither of them changes weights
    same = {"title": "", "synth": {}}
    return first_change(trained | same, to_dict(recipe) | same)


def is_imported(run: Run) -> bool:
    """Whether the weights of a run are imported, those of a pretrained autoencoder, say."""
    return "imported" in run.origin["data"]


def unfit_network(run: Run, stage: FullStage) -> str:
    """The reason why the network of a run with imported weights cannot replace that of a stage; "" if it can."""
    theirs = read_header(run.weights())["recipe"]
    ours = {"kind": kind_of(stage.net), **to_tables(stage.net)}
    return first_change(theirs["net"], ours, "net")
