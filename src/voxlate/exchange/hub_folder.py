"""The folder of a model for a hub: weights, anatomy and calibrations without patients, the ONNX model, and a card.

hf://NAME/REPO reads it (base/hub.py). Names of cases, digests of their scans and paths stay with the run, and so do
the naive baselines, because their mean of few scans shows these at full resolution.
"""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from voxlate.base.errors import BadInput
from voxlate.base.files import whole_folder
from voxlate.base.messages import Message, message
from voxlate.exchange.export import export_model
from voxlate.exchange.hub_card import Scored, write_card
from voxlate.synthesis.calibration import Calibration
from voxlate.synthesis.model import Model
from voxlate.training.calibration_file import read_calibration, write_calibration
from voxlate.training.load import load
from voxlate.training.run import Run, weights_of
from voxlate.training.torch_network import network_of
from voxlate.training.weights import file_hash, read_header, read_weights, write_weights

# Of the header of weights: all that is there but voxels and signatures of the training scans.
KEPT = (
    "units", "target_scales", "target_widths", "preparation", "training_ranges", "training_spacing_mm", "training_ml",
    "steps", "starter", "imported", "bound", "worse", "recipe", "imports", "adapted", "kept_step", "sharpness",
    "parameters", "seconds", "training_cases", "made_by",
)  # fmt: skip
ONNX = "onnx"  # the folder of the exported model
CARD = "README.md"


def build_folder(
    model: Model,
    repo: str,
    folder: Path,
    scores: Scored | None,
    licence: str,
    with_onnx: bool,
    allow_code: bool,
) -> list[Message]:
    """Write a model to a new folder for NAME/REPO on a hub; returns messages on what could not be part of it.

    allow_code: import code outside voxlate that the model names. Raises BadInput for an ensemble, and where the folder exists.
    """
    if model.models:
        raise BadInput("RUN: expected one run, found several. Push each by itself.")
    if folder.exists():
        raise BadInput(f"{folder}: expected a new folder, found one. Choose another --dry-run.")
    with whole_folder(folder) as new:
        calibrations = list[Calibration]()
        messages = [*_copy(model, new, calibrations)]
        # the copy itself is exported, so that both models have one calibration; messages name the run
        copied = replace(load(new, "cpu", allow_code), origin=model.origin)
        if with_onnx:
            try:
                export_model(copied, new / ONNX, licence=licence)
            except BadInput as error:
                messages.append(message("no-onnx", f"No ONNX model is in the folder: {error}"))
        write_card(new / CARD, model, repo, calibrations, scores, licence, (new / ONNX).is_dir())
    return messages


def _copy(model: Model, folder: Path, calibrations: list[Calibration]) -> Iterator[Message]:
    """Copy the files of a run without its patients; adds the calibrations that are copied to a list."""
    weights, new = weights_of(model.origin), Run(folder)
    old = Run(weights.parent)
    stage = network_of(model).recipe.task.mean_stage
    places = {weights: new.weights()}
    if stage is not None and old.weights(stage).is_file():
        places[old.weights(stage)] = new.weights(stage)
    hashes = {}
    for own, copy in places.items():
        header = read_header(own)
        kept = {key: header[key] for key in KEPT if key in header}
        write_weights(copy, read_weights(own), kept)
        hashes[file_hash(own)] = file_hash(copy)
    if old.anatomy.is_file():
        shutil.copyfile(old.anatomy, new.anatomy)
    for file in old.calibrations:
        calibration = read_calibration(file)
        stated = calibration.header
        if stated.weights not in hashes:
            text = f"{file.name} is left out, because it belongs to other weights."
            yield message("not-pushed", text)
            continue
        # the number of cases is stated, their names and contents are not
        cases: dict[str, dict[str, str]] = {
            f"held-out {number}": {} for number in range(1, len(stated.cases) + 1)
        }
        nameless = replace(stated, cases=cases, weights=hashes[stated.weights])
        calibrations.append(replace(calibration, header=nameless))
        write_calibration(folder / file.name, calibrations[-1])
