"""The work of a check: which models fit uploaded scans, and why, by the functions of `voxlate check`."""

import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

from voxlate.base.errors import BadInput, plural
from voxlate.base.messages import GRADES, worst_grade
from voxlate.commands.api.images import CheckedCase, check_case
from voxlate.commands.api.progress import Reporter
from voxlate.page.api import Fit, Said
from voxlate.page.jobs import SCANS, Asked, Json
from voxlate.page.words import CONTRASTS, contrast_of
from voxlate.scans.cases.case import MASK
from voxlate.scans.cohorts.owners import person_in
from voxlate.scans.cohorts.path_names import modality_by_name
from voxlate.scans.cohorts.presets import modality_of
from voxlate.scans.formats.dicom import is_dicom_folder, list_series
from voxlate.scans.formats.format import errors_as
from voxlate.scans.formats.io import format_by_ending, is_picture
from voxlate.synthesis.cohort import select
from voxlate.synthesis.model import Model
from voxlate.synthesis.scans import why_excluded
from voxlate.synthesis.synth_options import SynthOptions
from voxlate.training.load import load
from voxlate.training.starters.card import read_card
from voxlate.training.starters.names import name_of

ORDER = (None, *GRADES)  # of the worst warning


@dataclass(frozen=True)
class Entry:
    """A file or series of an upload.

    place: below the upload's folder; images: of a series; why: the reason why it is not offered; contrast: that which
    its tags or its name state; study: of a series, which other series are of the same patient.
    """

    place: str
    title: str
    images: str = ""
    why: str = ""
    contrast: str = ""
    study: str = ""


def check(folder: Path, request: Asked, reporter: Reporter) -> Json:
    """Find which files an upload has, and which models fit them, the best first.

    The networks compute one small slice each, for their self-tests.
    """
    scans = folder / SCANS
    runs = request["runs"]
    entries = list_entries(scans)
    _check_patients(scans, entries)
    fits = []
    for number, (label, run) in enumerate(runs.items()):
        reporter.step("models", number, len(runs))
        fits.append(_fit(label, run, scans, request))
    fits.sort(key=lambda fit: (bool(fit.why_not), ORDER.index(fit.worst)))
    taken = sorted({contrast_of(name) for fit in fits for name in fit.names})
    names = dict(zip(taken, taken)) | CONTRASTS
    return {
        "entries": [asdict(entry) for entry in entries],
        "fits": [asdict(fit) for fit in fits],
        "names": names,
    }


def _check_patients(scans: Path, entries: Sequence[Entry]) -> None:
    """Raise BadInput for series of several patients, of whom the result would name one."""
    series = [scans / entry.place for entry in entries if entry.study]
    if len({*map(person_in, series)} - {""}) > 1:
        raise BadInput(
            f"upload: expected the scans of one patient, found {len(series)} series of several. Choose those of one."
        )


def list_entries(scans: Path) -> list[Entry]:
    """The files and series of an upload, in the order of their places; raises BadInput for none.

    Pictures beside DICOM series are those of a disc's viewer.
    """
    entries = []
    for folder in [scans, *sorted(path for path in scans.rglob("*") if path.is_dir())]:
        if is_dicom_folder(folder):
            entries += _series_in(folder, scans)
            continue
        for path in sorted(folder.iterdir()):
            if path.is_file() and format_by_ending(path.name):
                contrast = contrast_of(modality_by_name(path))
                entries.append(Entry(place_in(path, scans), path.name, contrast=contrast))
    if any(entry.study for entry in entries):
        entries = [entry for entry in entries if not is_picture(scans / entry.place)]
    if len(entries) == 1 and entries[0].study:
        entries[0] = replace(entries[0], why="")  # a lone series is what the user wants
    if not entries:
        raise BadInput(
            "upload: expected a scan (NIfTI, DICOM or another format that voxlate reads), found none. Choose other files."
        )
    return entries


def _series_in(folder: Path, scans: Path) -> list[Entry]:
    """The series in a DICOM folder; localisers, derived series and the like are listed, and not offered."""
    try:
        series = list_series(folder)
    except BadInput as error:
        return [Entry(place_in(folder, scans), "DICOM", why=str(error))]
    entries = []
    for found in series:
        place = place_in(found.path if len(series) > 1 else folder, scans)
        title = f"{found.modality} {found.description}".strip()
        aside = why_excluded(found)
        entries.append(
            Entry(
                place,
                title,
                images=plural(found.images, "image"),
                why=f"Not offered: {aside}." if aside else "",
                study=found.study or place,
                contrast=contrast_of(modality_of(found)),
            )
        )
    return entries


def _fit(label: str, run: str, scans: Path, request: Asked) -> Fit:
    """Whether a run fits an upload; one that cannot be opened or compared states the reason."""
    fit = Fit(label)
    fault = f"{label}: expected a model that can be compared with the scans, found a fault"
    try:
        with errors_as(fault, "The messages of this job on the server show where."):
            model = open_model(run, request["device"])
            fit = replace(
                fit,
                title=model.facts.title,
                target=tuple(model.facts.data.target),
                names=names_for_scans(model),
                limits=tuple(limits_of(model)),
                intervals=is_calibrated(model),
            )
            inputs = _inputs(model, scans, request.get("names", {}))
            checked = _check_inputs(model, inputs, scans)
    except BadInput as error:
        traceback.print_exception(error)  # the cause of a fault
        return replace(fit, why_not=str(error))
    messages = checked.messages
    return replace(
        fit,
        inputs=inputs,
        used={name: place_in(Path(scan["file"]), scans) for name, scan in checked.scans.items()},
        targets=tuple(checked.targets),
        warnings=tuple(Said(said.grade, f"{said}") for said in messages),
        worst=worst_grade(messages),
    )


def open_model(run: str, device: str) -> Model:
    """A run with its calibrated answer, whose images have a map of the uncertainty; else as it is."""
    model = load(run, device)
    if is_calibrated(model) or not model.facts.is_stochastic:
        return model
    with suppress(
        BadInput
    ):  # it may have no mean, and weights alone come without those of their predictor
        mean = load(run, device, answer="mean")
        if is_calibrated(mean):
            return mean
    return model


def is_calibrated(model: Model) -> bool:
    """Whether a model has intervals; False for a calibration of other weights, of which a synthesis says what to do."""
    try:
        return model.calibration() is not None
    except BadInput:
        return False


def limits_of(model: Model) -> list[str]:
    """The limits of a starter, and what it states of its intervals; of other models none."""
    if name_of(model.origin) is None:
        return []
    card = read_card(model.origin)
    return [*card.all_limits, card.on_intervals]


def names_for_scans(model: Model) -> tuple[str, ...]:
    """The names of modalities that a model takes as scans, and those that a starter accepts in their place."""
    aliases = chain.from_iterable(model.facts.accepts.values())
    return tuple(dict.fromkeys([*model.facts.data.source, *aliases]))


def _inputs(model: Model, scans: Path, said: Mapping[str, str]) -> tuple[str, ...]:
    """The inputs of `voxlate check` for a model: the whole upload, or the scans of which the user says what they are.

    said: contrasts by the place of an entry; scans of which nothing is said are then not used.
    """
    if not said:
        return (place_in(_innermost(scans), scans),)
    accepted = (*names_for_scans(model), MASK)
    own = {contrast_of(name): name for name in reversed(accepted)}
    own |= {name.lower(): name for name in accepted}
    pairs = dict[str, str]()
    for place, contrast in said.items():
        if name := own.get(contrast):
            pairs.setdefault(name, f"{name}={place}")
    if not pairs.keys() - {MASK}:
        wanted = " or ".join(names_for_scans(model))
        raise BadInput(
            f"scans: expected {wanted}, found none. Choose another model, or say what each scan is."
        )
    return tuple(pairs.values())


def _innermost(folder: Path) -> Path:
    """The only file or DICOM folder in a folder, whose name names the case; the folder itself where it holds more."""
    while folder.is_dir() and not is_dicom_folder(folder) and len([*folder.iterdir()]) == 1:
        (folder,) = folder.iterdir()
    return folder


def absolute_inputs(inputs: Sequence[str], scans: Path) -> list[str]:
    """Inputs with the upload's folder, as `voxlate synth` takes them."""
    texts = []
    for text in inputs:
        name, mark, place = text.rpartition("=")  # no name of an uploaded file has this sign
        texts.append(f"{name}{mark}{scans / place}")
    return texts


def _check_inputs(model: Model, inputs: tuple[str, ...], scans: Path) -> CheckedCase:
    """The check of a model's inputs; raises BadInput where a synthesis would refuse them."""
    selected = select(model, absolute_inputs(inputs, scans), SynthOptions())
    if len(selected.scans) != 1:
        raise BadInput(
            f"upload: expected the scans of one case, found {len(selected.scans)} cases. Choose one, or say below what each scan is."
        )
    return check_case(model, selected.scans[0])


def place_in(path: Path, scans: Path) -> str:
    """A scan's place below the upload's folder."""
    return path.relative_to(scans).as_posix() if path.is_relative_to(scans) else path.name
