"""Which models fit uploaded scans, and why: by the functions with which `voxlate synth` opens and checks them."""

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from voxlate.cases.case import MASK
from voxlate.formats.dicom import is_dicom_folder, list_series
from voxlate.formats.io import format_by_ending, is_there, read_volume, without_ending
from voxlate.images.units import UNITS
from voxlate.options.synthesise import SynthOptions
from voxlate.starters.card import read_card
from voxlate.starters.names import name_of
from voxlate.synthesis.ensemble import Ensemble
from voxlate.synthesis.inputs import targets_for
from voxlate.synthesis.intervals import patches_in, sources_of
from voxlate.synthesis.model import Model, load
from voxlate.synthesis.selection import select
from voxlate.system.devices import is_out_of_memory
from voxlate.system.errors import BadInput, plural
from voxlate.system.messages import Message, message
from voxlate.trust.out_of_distribution import verdict_on
from voxlate.web.shown import Answer, Entry, Fit

MOST_ENTRIES = 200  # files and series that are listed


def entries_of(scans: Path) -> list[Entry]:
    """The files and series of an upload, in the order of their places; raises BadInput for none and for too many."""
    found = list[Entry]()
    for folder in [scans, *sorted(path for path in scans.rglob("*") if path.is_dir())]:
        if is_dicom_folder(folder):
            found += _series_entries(folder, scans)
            continue
        files = sorted(path for path in folder.iterdir() if path.is_file())
        found += [_file_entry(path, scans) for path in files if format_by_ending(path.name)]
        if len(found) > MOST_ENTRIES:
            raise BadInput(
                f"upload: expected the scans of one case, found more than {MOST_ENTRIES} files and series. Choose one case, or use voxlate synth."
            )
    if not found:
        raise BadInput(
            "upload: expected a scan (NIfTI, DICOM or another format that voxlate reads), found none. Choose other files."
        )
    return found


def other_files(scans: Path) -> list[str]:
    """The files of an upload that are no scans, by their places; those among DICOM files are left to the series."""
    found = list[str]()
    for path in sorted(scans.rglob("*")):
        if path.is_file() and not format_by_ending(path.name) and not is_dicom_folder(path.parent):
            found.append(path.relative_to(scans).as_posix())
    return found


def _series_entries(folder: Path, scans: Path) -> list[Entry]:
    place = folder.relative_to(scans).as_posix()
    try:
        series = list_series(folder)
    except BadInput as error:
        return [Entry(place, "DICOM", why=str(error))]
    return [
        Entry(
            one.path.relative_to(scans).as_posix() if len(series) > 1 else place,
            f"{one.modality} {one.description}".strip(),
            plural(one.images, "image"),
        )
        for one in series
    ]


def _file_entry(path: Path, scans: Path) -> Entry:
    place = path.relative_to(scans).as_posix()
    name = without_ending(path.name)
    try:
        volume = read_volume(path, name)
    except BadInput as error:
        return Entry(place, path.name, why=str(error))
    return Entry(place, path.name, str(volume.grid), volume.unit)


def fits_of(
    runs: Mapping[str, str],
    scans: Path,
    entries: Sequence[Entry],
    names: Mapping[str, str],
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> list[Fit]:
    """The fit of each run to the scans, the best first.

    runs: by label; names: modalities by the place of an entry, as the user says them; {} where nothing was said.
    """
    results = list[Fit]()
    for number, (label, run) in enumerate(runs.items()):
        if progress is not None:
            progress(number, len(runs))
        results.append(_fit(label, run, scans, entries, names, device))
    return sorted(results, key=lambda fit: fit.rank)


def _fit(
    label: str,
    run: str,
    scans: Path,
    entries: Sequence[Entry],
    names: Mapping[str, str],
    device: str,
) -> Fit:
    """The fit of one run; one that cannot be opened or compared is listed with the reason, and the others are checked."""
    found = Fit(label)
    try:
        models = _by_answer(run, device)
        model = next(iter(models.values()))
        found = replace(
            found,
            title=models.get("sample", model).recipe.title,
            source=tuple(model.recipe.data.source),
            target=tuple(model.recipe.data.target),
            names=accepted_names(model),
            inputs=inputs_for(model, entries, names),
            accepts=accepted_scans(model),
            limits=limits_of(model.origin),
        )
        return replace(found, **_checked(model, found.inputs, scans), **_settings(models))
    except Exception as error:
        return replace(found, why_not=_reason(label, error))


def _reason(label: str, error: Exception) -> str:
    """Why a run cannot be used; of an error that is not foreseen, the place is printed."""
    if isinstance(error, BadInput):
        return str(error)
    if is_out_of_memory(error):
        return f"{label}: expected enough memory for this model and the scan, found too little. Choose a smaller scan, or close other programs."
    if isinstance(error, OSError):
        return f"{label}: expected a model that can be read, found '{error.strerror}'. Check its folder."
    traceback.print_exception(error)
    return f"{label}: This should not happen: {type(error).__name__}. The messages of this job on the server show where."


def _by_answer(run: str, device: str) -> dict[Answer, Model]:
    """The models of a run by their answers, calibrated ones first, because their images have a map of the uncertainty."""
    model = load(run, device)
    models: dict[Answer, Model] = {model.answer: model}
    if model.recipe.method.is_stochastic and model.recipe.task.mean_stage is not None:
        with suppress(BadInput):  # weights alone come without those of their predictor
            models["mean"] = load(run, device, answer="mean")
    return dict(sorted(models.items(), key=lambda item: not _is_calibrated(item[1])))


def _is_calibrated(model: Model) -> bool:
    """Whether a model has intervals; False for a calibration of other weights, of which a synthesis says what to do."""
    try:
        return model.calibration() is not None
    except BadInput:
        return False


def accepted_scans(model: Model | Ensemble) -> dict[str, tuple[str, ...]]:
    """For each source of a starter, the names of scans that it stands for; {} of any other model."""
    sources = model.recipe.data.source
    return {name: tuple(scans) for name, scans in model.aliases.items() if name in sources}


def limits_of(origin: Path) -> tuple[str, ...]:
    """The limits on the card of a starter; () of any other model."""
    return () if name_of(origin) is None else tuple(read_card(origin).limits)


def accepted_names(model: Model) -> tuple[str, ...]:
    """The names of modalities that a model takes as scans, and those that a starter accepts in their place."""
    aliases = [name for accepted in model.aliases.values() for name in accepted]
    return tuple(dict.fromkeys([*model.recipe.data.source, *aliases]))


def inputs_for(model: Model, entries: Sequence[Entry], names: Mapping[str, str]) -> tuple[str, ...]:
    """The inputs of `voxlate synth` for an upload: the scans that the user names, a lone scan, or the whole folder."""
    if names:
        accepted = {name.lower() for name in (*accepted_names(model), MASK)}
        fitting = {place: name for place, name in names.items() if name.lower() in accepted}
        return tuple(f"{name}={place}" for place, name in (fitting or names).items())
    if len(entries) != 1 or len(model.recipe.data.source) != 1:
        return (".",)
    (lone,) = entries
    stem = without_ending(lone.title).lower()
    if stem in UNITS and stem not in {name.lower() for name in accepted_names(model)}:
        return (f"{stem}={lone.place}",)  # its name says that it is another modality
    return (lone.place,)


def absolute(inputs: Sequence[str], scans: Path) -> list[str]:
    """Inputs with the upload's folder, as `voxlate synth` takes them."""
    found = list[str]()
    for text in inputs:
        name, mark, place = ("", "", text) if is_there(scans / text) else text.partition("=")
        found.append(f"{name}{mark}{scans / place}")
    return found


def _checked(model: Model, inputs: Sequence[str], scans: Path) -> dict[str, Any]:
    """What a synthesis of these inputs would read and warn of; raises BadInput where it would refuse them."""
    selected = select(model, absolute(inputs, scans), SynthOptions())
    if len(selected.scans) != 1:
        raise BadInput(
            f"upload: expected the scans of one case, found {len(selected.scans)} cases. Choose one, or use voxlate synth."
        )
    (one,) = selected.scans
    prepared = model.prepare(one.files, one.case)
    calibration = model.calibration()
    warnings = [*one.notes, *prepared.warnings, *_unnamed(model, inputs, one.files)]
    warnings += model.unchecked
    if calibration is not None:
        sources = sources_of(model.recipe, prepared.prepared)
        patches = patches_in(model.recipe, prepared.prepared, sources)
        warnings += verdict_on(calibration.references, patches).messages
    return {
        "used": {name: _place(path, scans) for name, path in one.files.items()},
        "targets": tuple(targets_for(model.recipe, one.files)),
        "warnings": tuple((one.grade, str(one)) for one in warnings),
    }


def _settings(models: Mapping[Answer, Model]) -> dict[str, Any]:
    """The settings that have an effect: of the sampling where noise is drawn, steps where the network is iterated."""
    drawn = models.get("sample")
    synth = None if drawn is None else drawn.recipe.synth
    steps = None
    if drawn is not None and drawn.recipe.method.iterates:
        chosen_by_sampler = math.isinf(drawn.recipe.synth.evaluations)
        steps = None if chosen_by_sampler else drawn.recipe.synth.steps
    return {
        "answers": tuple(models),
        "intervals": tuple(answer for answer, one in models.items() if _is_calibrated(one)),
        "samples": None if synth is None else synth.samples,
        "steps": steps,
    }


def _unnamed(model: Model, inputs: Sequence[str], files: Mapping[str, Path]) -> list[Message]:
    """A message on each scan that the model takes although neither the user nor a name says what it is."""
    if any("=" in text for text in inputs):
        return []
    accepted = {name.lower() for name in accepted_names(model)}
    return [
        message(
            "only-scan",
            f"{path.name} is taken as {name} because it is the only scan; its name does not say so.",
        )
        for name, path in files.items()
        if without_ending(path.name).lower() not in accepted
    ]


def _place(path: Path, scans: Path) -> str:
    """A scan's place below the upload's folder."""
    return path.relative_to(scans).as_posix() if path.is_relative_to(scans) else path.name
