"""Facts about a file or folder, for the command info. It imports no torch for a scan."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.hub import download, is_on_hub
from voxlate.base.messages import Message, message
from voxlate.checks.check_table import exact_messages
from voxlate.checks.fingerprint import fingerprint
from voxlate.scans.formats.dicom import DICOM, SeriesInfo, is_dicom_folder, list_series
from voxlate.scans.formats.format import check_fetched
from voxlate.scans.formats.io import format_of, is_there, read_volume, without_ending
from voxlate.scans.images.units import unit_of
from voxlate.scans.layout_options import quote_path
from voxlate.training.starters.names import is_starter

NO_AIR_HU = -500.0  # air is below, all tissue but lung above


def describe_path(path: Path) -> dict[str, Any]:
    """Facts about a scan, a cohort (prepared or not), a run or weights; raises BadInput for others."""
    if is_starter(path):
        from voxlate.training.starter import run_folder  # imports torch, which a scan does not need

        return _model(run_folder(path))
    if is_on_hub(path):
        return _model(download(path))
    check_fetched(path)
    if not is_there(path):
        raise BadInput(
            f"{path}: expected a scan, a run or a prepared cohort, found nothing there. Check the path."
        )
    if (path / "cohort.json").is_file():
        return _cohort(path)
    if (path / "model.json").is_file():
        return _exported(path)
    if path.suffix == ".safetensors" or (path / "recipe.toml").is_file():
        return _model(path)
    if path.is_dir():
        return _folder(path)
    return _scan(path)


def _folder(path: Path) -> dict[str, Any]:
    """Facts about a folder that is neither prepared nor a run: DICOM series, or cases."""
    from voxlate.scans.cohorts.find import find_cohort  # imported where a folder asks for it

    if is_dicom_folder(path):
        series = list_series(path)
        return _series(path, series) if len(series) > 1 else _scan(path)
    try:
        cohort = find_cohort(path)
    except BadInput:
        folders = filter(is_dicom_folder, sorted(path.iterdir()))
        series = [*chain.from_iterable(map(list_series, folders))]
        if not series:
            raise
        return _series(path, series)
    scans = Counter(chain.from_iterable(case.files for case in cohort.cases))
    return {
        "cohort": str(path),
        "cases": len(cohort.cases),
        "patients": len({case.patient or case.case for case in cohort.cases}),
        "modalities": {name: scans[name] for name in sorted(scans)},
        "left out": [*cohort.unread, *cohort.unclaimed],
        **({"assumed": cohort.guessed} if cohort.guessed else {}),
        "next": f"voxlate prepare {quote_path(path)} --out PREPARED",
    }


def _series(path: Path, series: Sequence[SeriesInfo]) -> dict[str, Any]:
    return {
        "DICOM series": len(series),
        **{str(found.path): _series_line(found) for found in series},
        "next": f"voxlate info {quote_path(series[0].path)}, or for a cohort a file of [series] tables: docs/guides/dicom.md",
    }


def _series_line(series: SeriesInfo) -> str:
    from voxlate.synthesis.scans import why_excluded  # imported where a study asks for it

    reason = why_excluded(series)
    number = f", number {series.number}" if series.number else ""
    choice = f"; {reason}: no candidate of a model" if reason else ""
    return f"{series.modality}, {series.description or 'no description'}, {series.images} images{number}{choice}"


def _scan(path: Path) -> dict[str, Any]:
    """The voxels are read too: a header alone would not show that a file is cut short or full of NaN."""
    # DICOM headers name the modality
    named = "" if format_of(path) is DICOM else without_ending(path.name)
    volume = read_volume(path, named, allow_nan=True)
    values, finite = volume.data, np.isfinite(volume.data)
    low, high = values.min(where=finite, initial=np.inf), values.max(where=finite, initial=-np.inf)
    count = int(finite.sum())
    stated = _unit_in_provenance(path, named)
    guesses = [
        *volume.guesses,
        *([] if stated else _guesses_of_unit(named, volume.unit, float(low))),
    ]
    warnings = (
        exact_messages(fingerprint(volume), volume.unit, groups=("array", "scan"))
        if finite.all()
        else []
    )
    return {
        "file": str(path),
        "grid": str(volume.grid),
        "shape_xyz": [*reversed(volume.grid.shape)],
        "spacing_mm_xyz": [round(float(mm), 4) for mm in reversed(volume.grid.spacing_mm)],
        "axes": "".join(nib.orientations.aff2axcodes(volume.affine)),
        "unit": stated or volume.unit,
        "range": [float(low), float(high)] if count else [None, None],
        "not_finite": values.size - count,
        **({"guessed": guesses} if guesses else {}),
        **({"warnings": warnings} if warnings else {}),
        # a CT is what most models synthesise, and no scan to give to them, as is a file without numbers
        **(
            {}
            if volume.unit == "HU" or not count
            else {"next": f"voxlate check RUN {quote_path(path)}"}
        ),
    }


def _guesses_of_unit(named: str, unit: str, low: float) -> list[Message]:
    """A message on a unit that only the file's name states, and on values that speak against Hounsfield units."""
    said = []
    if named and unit == unit_of(named) and unit != unit_of(""):
        said.append(f"unit {unit}, by the file's name alone")
    if unit == "HU" and low > NO_AIR_HU:
        said.append(
            f"its lowest value is {low:g}, while a CT has air at -1000: it may be no CT, a windowed or masked one, or lack its offset"
        )
    return [message("guess", "; ".join(said))] if said else []


def _unit_in_provenance(path: Path, modality: str) -> str | None:
    """The unit in the provenance of a synthesised image: a CT may have grey values."""
    provenance = path.parent / "provenance.json"
    if not provenance.is_file():
        return None
    # only images of a synthesis need it
    from voxlate.synthesis.provenance import read_synthesis

    units: dict[str, str] = read_synthesis(provenance).get("units", {})
    return units.get(modality)


def _cohort(path: Path) -> dict[str, Any]:
    # a scan is described without it, in half the time
    from voxlate.scans.cases.prepared import open_cohort

    cohort = open_cohort(path)
    return {
        "prepared cohort": str(path),
        "cases": {name: len(cases) for name, cases in cohort.splits.items()},
        "patients": len({entry.patient for entry in cohort.cases}),
        "modalities": {name: cohort.units[name] for name in cohort.modalities},
        "made from": cohort.provenance.get("root", ""),
        "warnings": [*map(str, cohort.warnings)],
    }


def _exported(path: Path) -> dict[str, Any]:
    from voxlate.synthesis.exported import read_model

    stated = read_model(path)
    inputs = " ".join(f"{name}=SCAN" for name in stated.facts.data.source)
    return {
        "exported model": str(path),
        "title": stated.facts.title,
        "source": stated.facts.data.source,
        "target": stated.facts.data.target,
        "intervals": "none" if stated.calibration is None else "calibrated",
        "licence": stated.licence,
        "notice": stated.notice,
        "next": f"voxlate synth {quote_path(path)} {inputs} --out OUT",
    }


def _model(path: Path) -> dict[str, Any]:
    from voxlate.training.run import Run
    from voxlate.training.weights import read_header

    weights = Run(path).weights() if path.is_dir() else path
    if path.is_dir() and not weights.exists():
        state = "not begun"
        if Run(path).state.exists():
            state = "stopped; the same train command resumes it"
        return {"run": str(path), "state": state}
    header = read_header(weights)
    recipe = header["recipe"]
    return {
        "model": str(weights),
        "title": recipe["title"],
        "source": recipe["data"]["source"],
        "target": recipe["data"]["target"],
        **({"needs code": ", ".join(header["imports"])} if "imports" in header else {}),
        "parameters": header["parameters"],
        "steps": header["steps"],
        "minutes": round(header["seconds"] / 60, 1),
        "made by": f"voxlate {header['made_by']['voxlate']}, torch {header['made_by']['torch']}",
        "notice": header["made_by"]["notice"],
    }
