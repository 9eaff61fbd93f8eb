"""Facts about a file or folder, for the command info. It imports no torch for a scan."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.hub import is_on_hub
from voxlate.base.messages import NOTICE
from voxlate.checks.check_table import exact_messages
from voxlate.checks.fingerprint import fingerprint
from voxlate.scans.formats.dicom import DICOM, is_dicom_folder, list_series
from voxlate.scans.formats.format import check_fetched
from voxlate.scans.formats.io import format_of, is_there, read_volume, without_ending
from voxlate.scans.layout_options import quote_path
from voxlate.training.starters.card import read_card
from voxlate.training.starters.names import folder_of, is_starter, run_folder


def describe_path(path: Path) -> dict[str, Any]:
    """Facts about a scan, a prepared cohort, a run or weights; raises BadInput for others."""
    if is_starter(path) and find_spec("torch") is None:
        return _card(path)
    if is_starter(path) or is_on_hub(path):
        return _model(run_folder(path))
    check_fetched(path)
    if not is_there(path):
        raise BadInput(
            f"{path}: expected a scan, a run or a prepared cohort, found nothing there. Check the path."
        )
    if (path / "cohort.json").is_file():
        return _prepared(path)
    if (path / "model.json").is_file():
        return _exported(path)
    if path.suffix == ".safetensors" or (path / "recipe.toml").is_file():
        return _model(path)
    if not path.is_dir():
        return _scan(path)
    if not is_dicom_folder(path):
        raise BadInput(
            f"{path}: expected a scan, a run or a prepared cohort, found another folder. voxlate manifest lists the cases of a cohort, voxlate report shows images of synth."
        )
    series = list_series(path)
    if len(series) == 1:
        return _scan(path)
    lines = [
        f"{one.path}: {one.modality}, {one.description or 'no description'}, {one.images} images"
        for one in series
    ]
    return {"DICOM series": lines, "next": f"voxlate info {quote_path(series[0].path)}"}


def _scan(path: Path) -> dict[str, Any]:
    """The voxels are read too: a header alone would not show that a file is cut short or full of NaN."""
    # DICOM headers name the modality
    named = "" if format_of(path) is DICOM else without_ending(path.name)
    volume = read_volume(path, named, allow_nan=True)
    finite = volume.data[np.isfinite(volume.data)]
    facts = {
        "file": str(path),
        "grid": str(volume.grid),
        "axes": "".join(nib.orientations.aff2axcodes(volume.affine)),
        "unit": volume.unit,
        "range": [float(finite.min()), float(finite.max())] if finite.size else [None, None],
        "not_finite": volume.data.size - finite.size,
        "assumed": volume.guesses,
        "warnings": [],
    }
    if not facts["not_finite"]:
        groups = ("array", "scan")
        facts["warnings"] = exact_messages(fingerprint(volume), volume.unit, groups=groups)
    return facts


def _prepared(path: Path) -> dict[str, Any]:
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
    return {
        "exported model": str(path),
        "title": stated.facts.title,
        "source": stated.facts.data.source,
        "target": stated.facts.data.target,
        "intervals": "none" if stated.calibration is None else "calibrated",
        "licence": stated.licence,
        "notice": stated.notice,
    }


def _card(starter: Path) -> dict[str, Any]:
    """What the card of a starter states, which needs no torch."""
    card = read_card(folder_of(starter))
    keys = ("title", "source", "target", "trained_on", "parameters", "licence")
    return {key.replace("_", " "): getattr(card, key) for key in keys} | {"notice": NOTICE}


def _model(path: Path) -> dict[str, Any]:
    from voxlate.training.run import Run
    from voxlate.training.weights import read_header

    weights = Run(path).weights() if path.is_dir() else path
    if not weights.exists():
        return {"run": str(path), "state": "no weights yet; the same train command resumes it"}
    header = read_header(weights)
    recipe, made_by = header["recipe"], header["made_by"]
    return {
        "model": str(weights),
        "title": recipe["title"],
        "source": recipe["data"]["source"],
        "target": recipe["data"]["target"],
        "needs code": ", ".join(header.get("imports", ())),
        "parameters": header["parameters"],
        "steps": header["steps"],
        "minutes": round(header["seconds"] / 60, 1),
        "made by": f"voxlate {made_by['voxlate']}, torch {made_by['torch']}",
        "notice": made_by["notice"],
    }
