"""Synthesis of many cases into a folder; finished cases are kept, so that a stopped command resumes."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxlate.data.case import MASK
from voxlate.data.find import find_cases, load_preset
from voxlate.errors import BadInput
from voxlate.files import read_json, write_json
from voxlate.images.dicom import is_dicom_folder, without_key
from voxlate.images.volume import is_there, write_volume
from voxlate.synthesis.model import COST, Model, Synthesised
from voxlate.training.run import Run

PICTURES = (".png", ".tif", ".tiff")
NamedProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Scans:
    """One case to synthesise: its name and where its scans are."""

    case: str
    files: dict[str, Path]


def find_scans(
    inputs: list[str], model: Model, *, split: str | None = None, missing: list[str] | None = None, **layout: Any
) -> list[Scans]:
    """The scans that the inputs name: `modality=path` pairs, a file or DICOM series, a case folder, or a cohort.

    missing: modalities to leave out although they are there (to complete them). Raises BadInput where nothing fits.
    """
    left_out = {name.lower() for name in missing or ()}
    if unknown := sorted(left_out - {name.lower() for name in model.recipe.data.source}):
        raise BadInput(
            f"--missing: expected some of {', '.join(model.recipe.data.source)}, found {unknown[0]}. "
            "Choose one of these."
        )
    wanted = {name for name in model.scan_names if name.lower() not in left_out}
    return [
        Scans(one.case, {name: path for name, path in one.files.items() if name in wanted})
        for one in _named(inputs, model, split, layout)
    ]


def _named(inputs: list[str], model: Model, split: str | None, layout: Mapping[str, Any]) -> Iterator[Scans]:
    sources = model.recipe.data.source
    if all("=" in text for text in inputs):
        pairs = dict(text.split("=", 1) for text in inputs)
        names = {name.lower(): name for name in (*sources, MASK)}
        if unknown := [name for name in pairs if name.lower() not in names]:
            raise BadInput(
                f"INPUT: expected scans of {', '.join(sources)}, or a mask, found '{unknown[0]}'. Choose one of these."
            )
        yield Scans("case", {names[name.lower()]: Path(path) for name, path in pairs.items()})
        return
    if len(inputs) != 1:
        raise BadInput(
            f"INPUT: expected one folder or modality=path pairs, found {' '.join(inputs)}. Give one or the other."
        )
    path = Path(inputs[0])
    if not is_there(path):
        raise BadInput(f"{path}: expected a case, a cohort or a file, found nothing there. Check the path.")
    if _is_one_scan(path, layout):
        if len(sources) != 1:
            raise BadInput(
                f"{path}: expected {' and '.join(sources)}, found one scan. Give pairs such as {sources[0]}={path}."
            )
        yield Scans(without_key(path)[0].name.split(".")[0], {sources[0]: path})
        return
    recorded = _recorded(model, split)
    for case in find_cases(path, **layout):
        if split is None or case.split == split or (case.split is None and case.case in recorded):
            yield Scans(case.case, case.files | ({MASK: case.mask} if case.mask else {}))


def _is_one_scan(path: Path, layout: Mapping[str, Any]) -> bool:
    """Whether a path is a file or a DICOM series, not a folder of several series for a preset to choose from."""
    if not path.is_dir():
        return True
    by_series = layout.get("preset") is not None and load_preset(layout["preset"]).series
    return is_dicom_folder(path) and not by_series


def _recorded(model: Model, split: str | None) -> set[str]:
    """The cases of a split in the run's training, for cohorts without splits."""
    folder = model.origin if model.origin.is_dir() else model.origin.parent  # a weights file lies in its run
    provenance = Run(folder).provenance
    if split is None or not provenance.is_file():
        return set()
    return set(read_json(provenance)["data"]["splits"].get(split, []))


def synthesise_cases(
    model: Model, scans: list[Scans], out: Path, *, seed: int = 0, progress: NamedProgress | None = None
) -> list[Path]:
    """Write OUT/<case>/<modality>.nii.gz, <modality>_std.nii.gz and provenance.json for each case; give the folders."""
    if not scans:
        raise BadInput(f"{out}: expected cases to synthesise, found none. Check INPUT and --split.")
    for one in scans:  # refuse what cannot work before the first case is made
        model.check_names(one.files, one.case)
    folders = []
    for number, one in enumerate(scans):
        if progress:
            progress("cases", number, len(scans))
        folder = out / one.case
        if not _is_done(folder, model, one, seed):
            report = (lambda done, total: progress("slices", done, total)) if progress else None
            result = model.synthesise(one.files, case=one.case, seed=seed, progress=report)
            _write(folder, result, one.files)
        if number == 0:
            shared = read_json(folder / "provenance.json")
            own = ("case", "inputs", "prepared", *COST)
            write_json(out / "provenance.json", {key: shared[key] for key in shared if key not in own})
        folders.append(folder)
        if progress:
            progress("cases", number + 1, len(scans))
    return folders


def _write(folder: Path, result: Synthesised, files: Mapping[str, Path]) -> None:
    """The provenance comes last: a folder that has one is whole."""
    (folder / "provenance.json").unlink(missing_ok=True)
    for name in result.volumes:  # of an earlier synthesis with other options
        for stale in folder.glob(f"{name}_std.*"):
            stale.unlink()
    suffixes = {path.suffix.lower() for path in files.values()}
    for name, volume in [*result.volumes.items(), *((f"{name}_std", std) for name, std in result.std.items())]:
        write_volume(folder / f"{name}.nii.gz", volume)
        if suffixes <= set(PICTURES):  # pictures in, pictures out
            write_volume(folder / f"{name}.png", volume)
    write_json(folder / "provenance.json", result.provenance)


def _is_done(folder: Path, model: Model, scans: Scans, seed: int) -> bool:
    path = folder / "provenance.json"
    if not path.exists():
        return False
    found, wanted = read_json(path), model.plan(scans.files, scans.case, seed)
    return all(found.get(key) == value for key, value in wanted.items())
