"""The images of a synthesis as derived DICOM series: OUT as `synth` wrote it, or an image of one case."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxlate.errors import BadInput, first_of
from voxlate.files import SYNTHETIC, locked
from voxlate.images.formats.dicom import folder_and_key, is_dicom_folder
from voxlate.images.formats.dicom_derived import UNITS, Origin, write_derived
from voxlate.images.io import is_picture, read_volume, without_ending
from voxlate.scoring.provenance import provenance_of, stated_inputs
from voxlate.synthesis.output_folder import SHARED_SECONDS

PROVENANCE = "provenance.json"
# What the headers state of a provenance: no path, and no name of a case.
_STATED = ("model", "seed", "synth", "units", "warnings", "notice")


@dataclass
class Exported:
    """The folders of written series, and the units of images that no CT or MR series can hold."""

    series: list[Path] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def export_dicom(
    out: Path,
    to: Path,
    like: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Write TO/<case>/<image>/0001.dcm … for every image in a folder that synth wrote, or in one of its case folders.

    like: the DICOM series of the source, where OUT holds one case; by default that from which each case was made, as
    its provenance states it. progress is called with (images done, images). Images that no CT or MR series can hold
    are left out and listed. Raises BadInput for a folder without images, cases that were not made of DICOM, and a
    `like` for several cases. A series that is there, of the same image and source, is kept.
    """
    cases = _case_folders(out)
    if like is not None and len(cases) > 1:
        raise BadInput(
            f"--like: expected one case in {out}, of which {like} is the source, found {len(cases)}. Name the folder of one case."
        )
    images = [(case, name) for case in cases for name in _images(case)]
    if not images:
        raise BadInput(f"{out}: expected images that synth wrote, found none. Name its --out.")
    exported = Exported()
    with locked(to, SHARED_SECONDS):
        for number, (case, name) in enumerate(images):
            if progress is not None:
                progress(number, len(images))
            source = like or _source_of(case)
            modality = without_ending(name).removeprefix(SYNTHETIC)
            volume = read_volume(case / name, modality)
            if volume.unit not in UNITS:
                exported.left_out[f"{case.name}/{name}"] = volume.unit
                continue
            folder = to / case.name / name.split(".")[0]
            write_derived(volume, source, folder, origin_of(provenance_of(case)))
            exported.series.append(folder)
    if progress is not None:
        progress(len(images), len(images))
    return exported


def check_dicom(files: Mapping[str, Sequence[Path]]) -> None:
    """Raise BadInput before a synthesis of cases that have no DICOM series, whose images could not be exported."""
    for case, paths in files.items():
        if not any(_is_series(path) for path in paths):
            raise BadInput(
                f"--dicom: expected a DICOM series as the scan of every case, found {first_of(paths) or 'none'} of {case}. Leave --dicom out, and use voxlate export --like SERIES."
            )


def _is_series(path: Path) -> bool:
    folder, _ = folder_and_key(path)
    return folder.is_dir() and is_dicom_folder(folder)


def _case_folders(out: Path) -> list[Path]:
    """The case folders of a synthesis; of a case folder, itself."""
    if not out.is_dir():
        raise BadInput(f"{out}: expected a folder that synth wrote, found none. Name its --out.")
    inside = sorted(path.parent for path in out.glob(f"*/{PROVENANCE}"))
    return inside or [out]


def _images(case: Path) -> list[str]:
    """The names of a case's images, as its provenance records them; pictures are left out."""
    stated: Mapping[str, Any] = provenance_of(case).get("images", {})
    return [name for name in stated if not is_picture(Path(name)) and (case / name).is_file()]


def _source_of(case: Path) -> Path:
    """The DICOM series of the first scan from which a case was made."""
    inputs = stated_inputs(provenance_of(case))
    for path in inputs.values():
        if _is_series(path):
            return path
    found = next(iter(inputs.values()), "no scan")
    raise BadInput(
        f"{case}: expected a synthesis of a DICOM series that is still in its place, found one of {found}. Name the series by --like."
    )


def origin_of(provenance: Mapping[str, Any]) -> Origin:
    """The provenance as headers state it, and the hash of the whole."""
    model = provenance.get("model", {})
    whole = json.dumps({key: provenance.get(key) for key in _STATED}, sort_keys=True, default=str)
    facts = [
        ("weights", str(model.get("weights", ""))),
        ("seed", str(provenance.get("seed", ""))),
        ("provenance", hashlib.sha256(whole.encode()).hexdigest()[:16]),
        *(("warning", sentence) for sentence in provenance.get("warnings", ())),
        ("notice", str(provenance.get("notice", ""))),
    ]
    return Origin(
        title=str(model.get("title", "")),
        version=str(provenance.get("voxlate", "")),
        facts=tuple(facts),
    )
