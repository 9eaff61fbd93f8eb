"""The folder of a model for a hub: weights, anatomy and calibrations without patients, and a card.

hf://NAME/REPO reads it (base/hub.py). Names of cases, digests of their scans and paths stay with the run, and so do
the naive baselines, because their mean of few scans shows these at full resolution. The card, README.md, is written from
the run and its calibrations.
"""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput, plural
from voxlate.base.files import file_hash, whole_folder, write_text
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
from voxlate.training.weights import read_header, read_weights, write_weights

# Of the header of weights: all that is there but voxels and signatures of the training scans.
KEPT = (
    "units", "target_scales", "target_widths", "preparation", "training_ranges", "training_spacing_mm", "training_ml",
    "steps", "starter", "imported", "bound", "worse", "recipe", "imports", "adapted", "kept_step", "sharpness",
    "parameters", "seconds", "training_cases", "made_by",
)  # fmt: skip
CARD = "README.md"
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
    path: Path, model: Model, repo: str, calibrations: Sequence[Calibration], licence: str
) -> None:
    """Write README.md: a header that the hub reads, and a text for people."""
    facts, header = model.facts, network_of(model).header
    sources = " and ".join(facts.data.source)
    targets = " and ".join(f"{name} [{header['units'][name]}]" for name in facts.data.target)
    task = f"Synthesises {targets} from {sources}."
    if facts.completes:
        task = f"Synthesises the missing ones of {sources} from the others."
    inputs = scans_to_give(facts.data, facts.completes)
    command = f"voxlate synth hf://{repo}@COMMIT {inputs} --out OUT"
    errors = [*verdict_lines(Run(weights_of(model.origin).parent).verdicts)]
    for calibration in calibrations:
        errors += _intervals(calibration)
    paragraphs = [
        _yaml(licence, [*facts.data.source, *facts.data.target]),
        f"# {facts.title}",
        f"{task} {NOTICE} It is meant for research on image synthesis, on scans like those of its training.",
        f"```\n{command}\n```\n\nReplace COMMIT by the hash of a commit of this repository.",
        "## Training",
        _training(header),
        ABSENT,
        "## Errors",
        *(errors or ["No errors and no intervals are stated."]),
        "## Limits",
        "\n".join(f"- {limit}" for limit in _limits(model)),
        f"Licence: {licence}.",
    ]
    write_text(path, "\n\n".join(paragraphs) + "\n")


def _yaml(licence: str, modalities: Sequence[str]) -> str:
    """The table at the head, which the hub reads."""
    name = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")
    table = huggingface_hub.ModelCardData(
        library_name="voxlate",
        pipeline_tag="image-to-image",
        tags=["medical", "image-synthesis", "not-a-medical-device", *dict.fromkeys(modalities)],
        license="other",
        license_name=name,
    )
    return f"---\n{table.to_yaml()}\n---"


def _training(header: Mapping[str, Any]) -> str:
    """Of what the model was made, without names of cases."""
    data = plural(header["training_cases"], "case")
    if "imported" in header:
        data = "cases that are not known here, and imported"
    elif starter := header.get("starter"):
        data = starter["trained_on"]
    made = header["made_by"]
    text = f"{header['parameters']:,} parameters, trained on {data}, in {plural(header['steps'], 'step')}, by voxlate {made['voxlate']} and torch {made['torch']}."
    if spacing := header.get("training_spacing_mm"):
        sizes = " x ".join(f"{size:.3g}" for size in spacing)
        text += f" Voxels of {sizes} mm (slice, row, column; median over cases)."
    if needs := header.get("imports"):
        text += f" It needs code that is no part of voxlate: {', '.join(needs)}."
    return text


def _intervals(calibration: Calibration) -> list[str]:
    """What a calibration states of its intervals, each sentence a paragraph."""
    header = calibration.header
    what = f"Images of {plural(header.synth['samples'], 'sample')}:"
    if header.widened is not None:
        fit = describe_fit(calibration.entry)
        return [f"{what} intervals {fit}. They are no guarantee for patients."]
    return [what, *sentences(header)]


def _limits(model: Model) -> Iterator[str]:
    """Sentences on what is not known of the model, or does not hold."""
    yield "A synthesised image may show structures that are not there, and lack some that are."
    yield "Scans of other scanners, sequences, bodies or diseases may give wrong images; voxlate warns of some of them."
    yield "Whether a scan was in the training cannot be checked, because its digests are not here."
    if starter := network_of(model).header.get("starter"):
        yield from read_card(folder_of(starter["name"])).all_limits
    yield "No scores on test patients are stated."
