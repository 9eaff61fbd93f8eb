"""The work of a check: which models fit uploaded scans, and why, by the functions of `voxlate check`."""

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

from voxlate.base.devices import single_threads
from voxlate.base.errors import BadInput, first_of, plural
from voxlate.base.messages import worst_grade
from voxlate.commands.api.images import CheckedCase, check_case
from voxlate.commands.api.progress import Reporter
from voxlate.page.api import Answer, Fit, Said
from voxlate.page.jobs import Asked, Json, scans_of
from voxlate.page.words import CONTRASTS, contrast_of
from voxlate.scans.cases.case import MASK
from voxlate.scans.cohorts.owners import person_in
from voxlate.scans.cohorts.path_names import modality_by_name
from voxlate.scans.cohorts.presets import modality_of
from voxlate.scans.formats.dicom import folder_and_key, is_dicom_folder, list_series
from voxlate.scans.formats.dicom_file import read_dicom
from voxlate.scans.formats.io import (
    format_by_ending,
    is_picture,
    is_there,
    location_of,
    read_volume,
    without_ending,
)
from voxlate.synthesis.cohort import select
from voxlate.synthesis.model import Model
from voxlate.synthesis.scans import why_excluded
from voxlate.synthesis.synth_options import SynthOptions
from voxlate.training.load import load
from voxlate.training.starters.card import read_card
from voxlate.training.starters.names import name_of

MODELS_AT_ONCE = 2  # models that are compared with the scans, most of whose work is NumPy's
MOST_ENTRIES = 200  # files and series that are listed
ORDER = (None, "note", "caution", "do not trust")  # of the worst warning
CHOICE = ("chosen-series", "chosen-scan")  # codes of messages on the choice among several scans


@dataclass(frozen=True)
class Entry:
    """A file or series of an upload.

    place: below the upload's folder; why: the reason why it is not offered; contrast: that which its tags or its name
    state; study: of a series, which other series are of the same patient.
    """

    place: str
    title: str
    grid: str = ""
    why: str = ""
    contrast: str = ""
    study: str = ""


def check(folder: Path, request: Asked, reporter: Reporter) -> Json:
    """Find which files an upload has, and which models fit them, the best first.

    The networks compute one small slice each, for their self-tests.
    """
    scans = scans_of(folder, request)
    runs = request["runs"]
    entries = list_entries(scans)
    _check_patients(scans, entries)
    fits = []
    reporter.step("models", 0, len(runs))

    def fit_run(label: str, run: str) -> Fit:
        return _fit(label, run, scans, request)

    with single_threads(MODELS_AT_ONCE) as pool:
        for number, fit in enumerate(pool.map(fit_run, runs, runs.values()), 1):
            fits.append(fit)
            reporter.step("models", number, len(runs))
    fits.sort(key=lambda fit: (bool(fit.why_not), ORDER.index(fit.worst)))
    taken = {contrast_of(name) for fit in fits for name in fit.names}
    names = {
        name: CONTRASTS.get(name, name)
        for name in (*CONTRASTS, *sorted(taken))
        if name in {*taken, MASK}
    }
    return {
        "entries": [asdict(entry) for entry in entries],
        "patient": _patient(scans, entries) if request.get("is_local") else "",
        "fits": [asdict(fit) for fit in fits],
        "others": [*_others(scans, entries)],
        "names": names,
    }


def _check_patients(scans: Path, entries: Sequence[Entry]) -> None:
    """Raise BadInput for series of several patients, of whom the result would name one."""
    series = [scans / entry.place for entry in entries if entry.study]
    if len({*map(person_in, series)} - {""}) > 1:
        raise BadInput(
            f"upload: expected the scans of one patient, found {len(series)} series of several. Choose those of one."
        )


def _patient(scans: Path, entries: Sequence[Entry]) -> str:
    """The patient's name by the first file of a series; "" where none states it."""
    for entry in entries:
        if entry.study:
            folder, _ = folder_and_key(scans / entry.place)
            first = next(path for path in folder.iterdir() if path.is_file())
            header = read_dicom(first, stop_before_pixels=True)
            return str(header.get("PatientName", "")).replace("^", " ").strip()
    return ""


def _others(scans: Path, entries: Sequence[Entry]) -> Iterator[str]:
    """Sentences on the files of an upload that are not used; those among DICOM files are left to the series."""
    listed = {location_of(scans / entry.place) for entry in entries}
    others = [
        path.name
        for path in sorted(scans.rglob("*"))
        if path.is_file() and listed.isdisjoint((path, path.parent))
    ]
    if others:
        yield f"Not used, because they are no scans: {first_of(others)}."


def list_entries(scans: Path) -> list[Entry]:
    """The files and series of an upload, in the order of their places; raises BadInput for none and for too many.

    Each has its place below the upload's folder, a title, grid and unit; why: the reason where it cannot be read. Pictures
    beside DICOM series are those of a disc's viewer.
    """
    entries = []
    for folder in [scans, *sorted(path for path in scans.rglob("*") if path.is_dir())]:
        if is_dicom_folder(folder):
            entries += _series_in(folder, scans)
            continue
        files = sorted(path for path in folder.iterdir() if path.is_file())
        entries += [_describe(path, scans) for path in files if format_by_ending(path.name)]
        if len(entries) > MOST_ENTRIES:
            raise BadInput(
                f"upload: expected the scans of one case, found more than {MOST_ENTRIES} files and series. Choose one case."
            )
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
                grid=plural(found.images, "image"),
                why=f"Not offered: {aside}." if aside else "",
                study=found.study or place,
                contrast=contrast_of(modality_of(found)),
            )
        )
    return entries


def _describe(path: Path, scans: Path) -> Entry:
    """A file that is no DICOM."""
    place = place_in(path, scans)
    try:
        volume = read_volume(path, without_ending(path.name))
    except BadInput as error:
        return Entry(place, path.name, why=str(error))
    contrast = contrast_of(modality_by_name(path))
    return Entry(place, path.name, grid=f"{volume.grid}, {volume.unit}", contrast=contrast)


def _fit(label: str, run: str, scans: Path, request: Asked) -> Fit:
    """Whether a run fits an upload; one that cannot be opened or compared states the reason."""
    fit = Fit(label)
    try:
        models = _models_by_answer(run, request["device"])
        model = next(iter(models.values()))
        fit = replace(
            fit,
            title=models.get("sample", model).facts.title,
            source=tuple(model.facts.data.source),
            target=tuple(model.facts.data.target),
            names=names_for_scans(model),
            card=card_of(model),
            answers=tuple(models),
            intervals=tuple(answer for answer, one in models.items() if _is_calibrated(one)),
        )
        inputs = _inputs(model, scans, request.get("names", {}))
        inputs, checked = _check_inputs(model, inputs, scans)
    except Exception as error:
        return replace(fit, why_not=_reason(label, error))
    messages = checked.messages
    return replace(
        fit,
        inputs=inputs,
        used={name: place_in(Path(scan["file"]), scans) for name, scan in checked.scans.items()},
        targets=tuple(checked.targets),
        choice=" ".join(said.on_page for said in messages if said.code in CHOICE),
        warnings=tuple(
            Said(said.grade, said.on_page) for said in messages if said.code not in CHOICE
        ),
        worst=worst_grade(messages),
    )


def _reason(label: str, error: Exception) -> str:
    """Why a run cannot be used; of an error that is not foreseen, the place is printed."""
    if isinstance(error, BadInput):
        return str(error)
    traceback.print_exception(error)
    return f"{label}: This should not happen: {type(error).__name__}. The messages of this job on the server show where."


def _models_by_answer(run: str, device: str) -> dict[Answer, Model]:
    """The models of a run by their answers, calibrated ones first, because their images have a map of the uncertainty."""
    model = load(run, device)
    models: dict[Answer, Model] = {model.facts.answer: model}
    if model.facts.is_stochastic and model.network.mean() is not None:
        with suppress(BadInput):  # weights alone come without those of their predictor
            models["mean"] = load(run, device, answer="mean")
    return dict(sorted(models.items(), key=lambda item: not _is_calibrated(item[1])))


def _is_calibrated(model: Model) -> bool:
    """Whether a model has intervals; False for a calibration of other weights, of which a synthesis says what to do."""
    try:
        return model.calibration() is not None
    except BadInput:
        return False


def card_of(model: Model) -> Json:
    """A starter's limits and intervals and, for each of its sources, the names of scans that it accepts; of other models none."""
    sources = model.facts.data.source
    accepts = {name: model.facts.accepts.get(name, (name,)) for name in sources}
    accepts = {
        name: [*dict.fromkeys(CONTRASTS.get(contrast_of(scan), scan) for scan in scans)]
        for name, scans in accepts.items()
    }
    if name_of(model.origin) is None:
        return {"accepts": accepts, "limits": []}
    card = read_card(model.origin)
    return {"accepts": accepts, "limits": [*card.all_limits, card.on_intervals]}


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
        wanted = " or ".join(chain.from_iterable(card_of(model)["accepts"].values()))
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
        name, mark, place = ("", "", text) if is_there(scans / text) else text.partition("=")
        texts.append(f"{name}{mark}{scans / place}")
    return texts


def _check_inputs(
    model: Model, inputs: tuple[str, ...], scans: Path
) -> tuple[tuple[str, ...], CheckedCase]:
    """The inputs that a model takes, and their check; raises BadInput where a synthesis would refuse them.

    A model that completes a case takes its first scan alone where it cannot take them all.
    """
    selected = select(model, absolute_inputs(inputs, scans), SynthOptions())
    if len(selected.scans) != 1:
        raise BadInput(
            f"upload: expected the scans of one case, found {len(selected.scans)} cases. Choose one, or say below what each scan is."
        )
    (found,) = selected.scans
    try:
        return inputs, check_case(model, found)
    except BadInput:
        if len(found.files) == 1 or not model.facts.completes:
            raise
        name = next(source for source in model.facts.data.source if source in found.files)
        path = found.files[name]
        alone = replace(found, files={name: path})
        return (f"{name}={place_in(path, scans)}",), check_case(model, alone)


def place_in(path: Path, scans: Path) -> str:
    """A scan's place below the upload's folder."""
    return path.relative_to(scans).as_posix() if path.is_relative_to(scans) else path.name
