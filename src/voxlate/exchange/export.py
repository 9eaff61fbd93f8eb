"""Export of a trained model as a folder that runs without torch (see synthesis.exported)."""

import json
import math
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxlate.base.config import adapter
from voxlate.base.errors import BadInput
from voxlate.base.files import sha256_of, whole_folder, write_json
from voxlate.base.optional import optional_package
from voxlate.base.records import checksum, write_tensors
from voxlate.exchange.graph import write_tested_graph
from voxlate.synthesis.calibration import Header
from voxlate.synthesis.exported import (
    ARRAYS,
    DESCRIPTION,
    FORMAT,
    NETWORK,
    CarriedCalibration,
    Description,
    Graph,
    load_exported,
)
from voxlate.synthesis.model import Model
from voxlate.training.run import software
from voxlate.training.torch_network import network_of


def export_model(model: Model, folder: Path, licence: str = "not stated") -> Description:
    """Write a model to a new folder MODEL/ and run its self-test with onnxruntime.

    The loss against torch's float32 is measured and stated. Raises BadInput for what cannot run without torch, and where
    the folder exists.
    """
    for package in ("onnx", "onnxruntime"):
        optional_package(package, "export", folder, f"{package} to export a model")
    model = _in_slices(model).with_options(precision="float32")
    _check(model)
    model.calibration()  # refuses one of other images, before the graph is traced
    if folder.exists():
        raise BadInput(f"{folder}: expected a new folder, found one. Choose another --out.")
    with whole_folder(folder) as new:
        return _write(model, new, licence)


def _in_slices(model: Model) -> Model:
    """The model without windows of slices where its network sees each slice alone: they decide nothing then."""
    network = network_of(model)
    recipe, synth = network.recipe, network.recipe.synth
    if synth.windows is None or recipe.net.joins_slices or recipe.data.patch[0] > 1:
        return model
    facts, network = network.with_synth(model.facts, replace(synth, windows=None))
    return replace(model, facts=facts, network=network)


def _check(model: Model) -> None:
    """Raise BadInput for models whose path needs torch or SimpleITK."""
    if model.models:
        raise BadInput(
            "RUN: expected one run, found several. Export each, and average their images."
        )
    preparation = model.facts.preparation
    for key in ("register", "align"):
        if found := getattr(preparation, key):
            raise BadInput(
                f"{model.origin}: expected scans that are prepared without --{key}, found {found}, which an exported model cannot do. Export a run of a cohort that was prepared without it."
            )


def _write(model: Model, folder: Path, licence: str) -> Description:
    network = network_of(model)
    graph, example = write_tested_graph(folder / NETWORK, network.method, network.recipe)
    arrays = {f"selftest.{name}": array for name, array in example.items()}
    arrays |= _arrays(model)
    text = json.dumps({"format": FORMAT})
    write_tensors(folder / ARRAYS, arrays, {"model": text, "sha256": checksum(text, arrays)})
    description = _describe(model, graph, licence, folder)
    _write_description(folder, description)
    load_exported(folder)
    return description


def _write_description(folder: Path, description: Description) -> None:
    write_json(folder / DESCRIPTION, adapter(Description).dump_python(description, mode="json"))


def _arrays(model: Model) -> dict[str, np.ndarray]:
    """The arrays of the anatomy and of the calibration."""
    arrays = dict[str, np.ndarray]()
    if model.anatomy is not None:
        arrays |= {f"anatomy.{name}": box for name, box in model.anatomy.arrays.items()}
    calibration = model.calibration()
    if calibration is None:
        return arrays
    for target, widths in calibration.widths.items():
        for name, array in widths.arrays.items():
            arrays[f"widths.{target}.{name}"] = array.reshape(array.shape or (1,))
    return arrays


def _describe(model: Model, graph: Graph, licence: str, folder: Path) -> Description:
    calibration = model.calibration()
    stated = None
    if calibration is not None:
        stated = CarriedCalibration(_without_cases(calibration.header), calibration.hash)
    anatomy = None
    if model.anatomy is not None:
        anatomy = model.anatomy.header
    made_by = software()
    notice = made_by.pop("notice")
    made_by |= {"onnx": metadata.version("onnx"), "torch": torch.__version__}
    return Description(
        FORMAT,
        made_by,
        notice,
        licence,
        # digests and names of the training's scans and patients stay with the run
        replace(model.facts, seen_voxels=[], splits={}, of_fold=False),
        graph,
        anatomy,
        stated,
        _card(model),
        {name: sha256_of(folder / name) for name in (NETWORK, ARRAYS)},
    )


def _without_cases(header: Header) -> Header:
    """A header without names of patients, comparisons of methods, and bounds that too few patients prove (inf)."""
    targets = {}
    for name, target in header.targets.items():
        bounds = {key: bound for key, bound in target.bounds.items() if math.isfinite(bound)}
        targets[name] = replace(target, compared={}, bounds=bounds)
    return replace(header, cases={}, made_by={}, targets=targets)


def _card(model: Model) -> dict[str, Any]:
    """What a person should know: the size of the training, and what a starter states of itself."""
    header = network_of(model).header
    card: dict[str, Any] = {"training_cases": header.get("training_cases", 0)}
    if "starter" in header:
        from voxlate.training.starters.card import read_card
        from voxlate.training.starters.names import folder_of

        own = read_card(folder_of(header["starter"]["name"]))
        card |= {"trained_on": own.trained_on, "limits": [*own.all_limits]}
    return card
