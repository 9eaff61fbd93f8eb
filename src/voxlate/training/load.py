"""The model that a path names: an exported model, or what needs torch: a run, a weights file, a starter, a model of a hub."""

import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from voxlate.base import machine
from voxlate.base.errors import BadInput
from voxlate.base.files import file_hash, read_json
from voxlate.base.hub import is_on_hub
from voxlate.base.records import Record
from voxlate.synthesis.calibration import Answer
from voxlate.synthesis.exported import is_exported, load_exported
from voxlate.synthesis.facts import ModelFacts
from voxlate.synthesis.model import Ensemble, Model
from voxlate.synthesis.scan_checks import read_known_scans
from voxlate.training.run_graph import has_graph, open_run_graph
from voxlate.training.starters.names import FACTS, folder_of, is_starter

WEIGHTS, ANATOMY = "weights.safetensors", "anatomy.safetensors"
# One of these is in the folder of a run, finished or not.
OF_RUN = ("recipe.toml", WEIGHTS)


def load(
    run: Path | str,
    device: str = "auto",
    allow_code: bool = False,
    answer: Answer | None = None,
    for_check: bool = False,
) -> Model:
    """Open an exported model, a run folder, a weights file, starter:NAME or hf://NAME/REPO for synthesis.

    allow_code: import, and thereby run, the code outside voxlate that the model names. answer: "mean" opens the
    predictor of a run that samples its predictor's residual, "sample" and None its last stage. for_check: the network of a
    starter or run may be left out, because a check asks its facts alone. Raises BadInput if it is no model, and where it has no
    such answer.
    """
    folder = folder_of(run) if is_starter(run) else Path(run)
    in_graph = has_graph(folder) and _is_processor(device)
    known = _known_model(folder) if for_check or in_graph else None
    if known is not None and answer in (None, known.facts.answer):
        if for_check:
            return known
        graph = open_run_graph(known.origin, folder / WEIGHTS, known.facts.weights_hash)
        return replace(known, network=graph)
    if not is_exported(run):
        from voxlate.training.torch_network import open_run

        return open_run(run, device, allow_code, answer)
    if device not in ("auto", "cpu"):
        raise BadInput(
            f"--device: expected auto or cpu for the exported model {run}, found {device!r}. Take the run itself on a GPU."
        )
    if answer is not None:
        raise BadInput(
            f"--answer: expected none for the exported model {run}, which has one answer, found {answer!r}. Export the run again with it."
        )
    return load_exported(run)


def _is_processor(device: str) -> bool:
    """Whether a device is the processor, on which torch need not be imported to ask for a GPU where there is none."""
    if device != "auto":
        return device == "cpu"
    if not machine.may_have_gpu() or find_spec("torch") is None:
        return True
    from voxlate.base.devices import find_device

    return find_device(device).type == "cpu"


def _known_model(folder: Path) -> Model | None:
    """A starter or run without its network, so that torch is not imported; None where its facts lack or are of other weights."""
    path, weights, anatomy = (folder / name for name in (FACTS, WEIGHTS, ANATOMY))
    if not (path.is_file() and weights.is_file() and anatomy.is_file()):
        return None
    record = Record(path, "the facts of a model", "Remove it.")
    unopened: Any = None
    # here, because an exported model has a calibration of its own
    from voxlate.training.calibration_file import RunCalibrations

    with suppress(BadInput):  # another version may state others, and the weights state them, too
        facts: ModelFacts = record.fill(ModelFacts, read_json(path))
        if facts.weights_hash == file_hash(weights):
            scans, calibrations = read_known_scans(anatomy), RunCalibrations(folder)
            return Model(facts, unopened, folder.resolve(), scans, calibrations)
    return None


def load_members(
    runs: Sequence[Path | str],
    device: str = "auto",
    allow_code: bool = False,
    answer: Answer | None = None,
    for_check: bool = False,
) -> Model:
    """Open a run or weights file, or several as an ensemble; raises BadInput (see load)."""
    models = tuple(load(run, device, allow_code, answer, for_check) for run in runs)
    if len(models) == 1:
        return models[0]
    return Ensemble(models).with_options(intervals=False)


def members_and_scans(inputs: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Split arguments into the runs and weights files at their beginning, and the rest, which names scans."""
    models = [*itertools.takewhile(_is_model, map(Path, inputs))]
    if len(models) == len(inputs):
        raise BadInput(
            f"INPUT: expected scans after the runs, found {', '.join(inputs) or 'nothing'} alone. Add a cohort."
        )
    return models, list(inputs[len(models) :])


def _is_model(path: Path) -> bool:
    """Whether a path is an exported model, a weights file, a starter, a model of a hub, or the folder of a run."""
    if is_starter(path) or is_on_hub(path) or is_exported(path):
        return True
    if path.is_dir():
        return any((path / name).is_file() for name in OF_RUN)
    return path.suffix == ".safetensors" and path.is_file()
