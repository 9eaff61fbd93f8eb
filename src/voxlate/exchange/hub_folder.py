"""The folder of a model for a hub: weights, anatomy and calibrations without patients, and a card.

hf://NAME/REPO reads it (base/hub.py). Names of cases, digests of their scans and paths stay with the run, and so do
the naive baselines, because their mean of few scans shows these at full resolution. The card, README.md, is model_card.md filled from
the run and its calibrations.
"""

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from voxlate.base.errors import BadInput, plural
from voxlate.base.files import file_hash, whole_folder, write_text
from voxlate.base.hub import huggingface_hub
from voxlate.base.messages import NOTICE, Message, message
from voxlate.evaluation.intervals.summary import sentences
from voxlate.synthesis.calibration import Calibration, describe_fit
from voxlate.synthesis.inputs import scans_to_give
from voxlate.synthesis.model import Model
from voxlate.training.calibration_file import read_calibration, write_calibration
from voxlate.training.run import Run, weights_of
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
    errors = [*verdict_lines(Run(weights_of(model.origin).parent).verdicts)]
    for calibration in calibrations:
        errors += _intervals(calibration)
    limits = []
    if starter := header.get("starter"):
        limits = [*read_card(folder_of(starter["name"])).all_limits]
    modalities = dict.fromkeys([*facts.data.source, *facts.data.target])
    card = huggingface_hub.ModelCard.from_template(
        huggingface_hub.ModelCardData(
            library_name="voxlate",
            pipeline_tag="image-to-image",
            tags=["medical", "image-synthesis", "not-a-medical-device", *modalities],
            license="other",
            license_name=re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-"),
        ),
        template_path=Path(__file__).with_name("model_card.md"),
        facts=facts,
        header=header,
        repo=repo,
        inputs=scans_to_give(facts.data, facts.completes),
        errors=errors,
        limits=limits,
        notice=NOTICE,
        absent=ABSENT,
        licence=licence,
    )
    write_text(path, f"{card}\n")


def _intervals(calibration: Calibration) -> list[str]:
    """What a calibration states of its intervals, each sentence a paragraph."""
    header = calibration.header
    what = f"Images of {plural(header.synth['samples'], 'sample')}:"
    if header.widened is not None:
        fit = describe_fit(calibration.entry)
        return [f"{what} intervals {fit}. They are no guarantee for patients."]
    return [what, *sentences(header)]
