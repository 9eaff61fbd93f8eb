"""The folder of a model for a hub: weights, anatomy and calibrations without patients, and a card.

hf://NAME/REPO reads it (base/hub.py). Names of cases, digests of their scans and paths stay with the run, and so do
the naive baselines, because their mean of few scans shows these at full resolution. The card, README.md, is written from
the run and its calibrations.
"""

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput, plural
from voxlate.base.files import whole_folder, write_text
from voxlate.base.hub import huggingface_hub
from voxlate.base.messages import Message, message
from voxlate.evaluation.intervals.summary import sentences
from voxlate.synthesis.calibration import Calibration, describe_fit
from voxlate.synthesis.inputs import scans_to_give
from voxlate.synthesis.model import Model
from voxlate.training.calibration_file import read_calibration, write_calibration
from voxlate.training.run import NOTICE, Run, weights_of
from voxlate.training.starters.card import read_card
from voxlate.training.starters.names import folder_of
from voxlate.training.torch_network import network_of
from voxlate.training.verdict import verdict_lines
from voxlate.training.weights import file_hash, read_header, read_weights, write_weights

# Of the header of weights: all that is there but voxels and signatures of the training scans.
KEPT = (
    "units", "target_scales", "target_widths", "preparation", "training_ranges", "training_spacing_mm", "training_ml",
    "steps", "starter", "imported", "bound", "worse", "recipe", "imports", "adapted", "kept_step", "sharpness",
    "parameters", "seconds", "training_cases", "made_by",
)  # fmt: skip
CARD = "README.md"
# Identifiers of licences that hubs know; another is stated by its name.
LICENCES = {
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0",
    "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "gpl-3.0", "agpl-3.0", "mpl-2.0",
}  # fmt: skip
# What a card says of itself: nothing in it names a patient.
ABSENT = "Names of cases and patients, digests of their scans, paths, images and the log of the training are not in these files."


def build_folder(
    model: Model,
    repo: str,
    folder: Path,
    licence: str,
) -> list[Message]:
    """Write a model to a new folder for NAME/REPO on a hub; returns messages on what could not be part of it.

    Raises BadInput for an ensemble, and where the folder exists.
    """
    if model.models:
        raise BadInput("RUN: expected one run, found several. Push each by itself.")
    if folder.exists():
        raise BadInput(f"{folder}: expected a new folder, found one. Choose another --dry-run.")
    with whole_folder(folder) as new:
        calibrations = list[Calibration]()
        messages = [*_copy(model, new, calibrations)]
        write_card(new / CARD, model, repo, calibrations, licence)
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


def write_card(
    path: Path,
    model: Model,
    repo: str,
    calibrations: Sequence[Calibration],
    licence: str,
) -> None:
    """Write README.md: a header that the hub reads, and sections for people."""
    sections = {
        "What it does": _task(model),
        "How to use it": _use(model, repo),
        "Training data": _training(model),
        "Scores": _scores(model),
        "Calibration": _calibration(calibrations),
        "Intended use": [
            f"{NOTICE} It is meant for research on image synthesis, on scans like those of its training.",
        ],
        "Limits": _limits(model, calibrations),
        "Licence": [
            f"{licence}." if licence != "not stated" else "No licence was stated: ask the owner."
        ],
    }
    lines = [_header(model, licence), f"# {model.facts.title}"]
    for title, texts in sections.items():
        lines += ["", f"## {title}", "", *texts]
    write_text(path, "\n".join(lines) + "\n")


def _header(model: Model, licence: str) -> str:
    """The YAML at the head, which the hub reads."""
    data = model.facts.data
    modalities = dict.fromkeys([*data.source, *data.target])
    known: dict[str, Any] = {"license": licence.lower()}
    if licence.lower() not in LICENCES:
        name = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")
        known = {"license": "other", "license_name": name}
    table = huggingface_hub.ModelCardData(
        library_name="voxlate",
        pipeline_tag="image-to-image",
        tags=["medical", "image-synthesis", "not-a-medical-device", *modalities],
        **known,
    )
    return f"---\n{table.to_yaml()}\n---"


def _task(model: Model) -> list[str]:
    data, header = model.facts.data, network_of(model).header
    units = {name: header["units"][name] for name in data.target}
    targets = " and ".join(f"{name} [{unit}]" for name, unit in units.items())
    sources = " and ".join(data.source)
    what = f"Synthesises {targets} from {sources}."
    if model.facts.completes:
        what = f"Synthesises the missing ones of {sources} from the others."
    size = f"{header['parameters']:,} parameters"
    if "imported" not in header:
        size += f", {plural(header['steps'], 'step')} of training in {header['seconds'] / 60:.3g} minutes"
    made = header["made_by"]
    by = f"Made by voxlate {made['voxlate']} with torch {made['torch']}."
    needs = header.get("imports", [])
    code = [f"It needs code that is no part of voxlate: {', '.join(needs)}."] if needs else []
    return [what, f"{size}.", by, *code]


def _use(model: Model, repo: str) -> list[str]:
    inputs = scans_to_give(model.facts.data, model.facts.completes)
    lines = ["Replace COMMIT by the hash of a commit of this repository.", "", "```"]
    lines.append(f"voxlate synth hf://{repo}@COMMIT {inputs} --out OUT")
    return [*lines, "```"]


def _training(model: Model) -> list[str]:
    header = network_of(model).header
    lines = [f"{plural(header['training_cases'], 'case')} in the training split."]
    if "imported" in header:
        lines = ["Trained elsewhere and imported: what it was trained on is not known here."]
    elif starter := header.get("starter"):
        lines = [f"Trained on {starter['trained_on']}."]
    if spacing := header.get("training_spacing_mm"):
        sizes = " x ".join(f"{size:.3g}" for size in spacing)
        lines.append(f"Voxels of {sizes} mm (slice, row, column; median over cases).")
    if "adapted" in header:
        lines.append("The weights of another training were adapted to these cases.")
    return [*lines, ABSENT]


def _scores(model: Model) -> list[str]:
    """What the training measured."""
    lines = ["Not scored on test cases."]
    if verdicts := Run(weights_of(model.origin).parent).verdicts:
        lines += ["On validation cases of the training:", "", *verdict_lines(verdicts)]
    return lines


def _calibration(calibrations: Sequence[Calibration]) -> list[str]:
    lines = []
    for calibration in calibrations:
        header = calibration.header
        what = f"Images of {plural(header.synth['samples'], 'sample')}:"
        if header.widened is not None:
            fit = describe_fit(calibration.entry)
            lines.append(f"{what} intervals {fit}. They are no guarantee for patients.")
            continue
        lines += [what, "", "```", *sentences(header), "```", ""]
    return lines or ["None: images have no prediction intervals."]


def _limits(model: Model, calibrations: Sequence[Calibration]) -> Iterator[str]:
    """Sentences on what is not known of the model, or does not hold."""
    yield "- A synthesised image may show structures that are not there, and lack some that are."
    yield "- Scans of other scanners, sequences, bodies or diseases may give wrong images; voxlate warns of some of them."
    yield "- Whether a scan was in the training cannot be checked, because its digests are not here."
    if starter := network_of(model).header.get("starter"):
        yield from (f"- {limit}" for limit in read_card(folder_of(starter["name"])).all_limits)
    yield "- No scores on test patients are stated."
    if not calibrations:
        yield "- How far a voxel may be wrong is not stated."
    if model.anatomy is None:
        yield "- Orientation and field of view of scans are not checked."
