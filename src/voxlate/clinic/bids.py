"""Synthesised images as a BIDS derivative: OUT/derivatives/voxlate, which is valid by itself and may be given away.

Names are those of the Brain Imaging Data Structure (https://bids-specification.readthedocs.io).
"""

import json
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from voxlate import __version__
from voxlate.base.errors import BadInput
from voxlate.base.files import (
    HIGH,
    LOW,
    STD,
    UNCALIBRATED,
    lock,
    read_json,
    whole_file,
    write_text,
)
from voxlate.base.messages import graded, read_messages
from voxlate.evaluation.scoring.scored_images import modality_of
from voxlate.scans.formats.io import location_of, read_volume, without_ending
from voxlate.scans.images.mask import is_stripped
from voxlate.scans.images.units import unit_of
from voxlate.synthesis.provenance import SHARED_SECONDS, read_provenance, source_paths

PLACE = Path("derivatives", "voxlate")
BIDS_VERSION = "1.10.0"
DATASET = "dataset_description.json"
IGNORED = ".bidsignore"
ENDINGS = (".nii.gz", ".nii")  # the formats that BIDS allows
README = """Images synthesised by voxlate. They are computed from other scans, not measured.

Research software, not a medical device: the images are not for diagnosis. The JSON file beside each image names the
model, its weights and settings, the source scans, and warnings about the image. voxlate is described there, too.
"""
# Entities of names, in the order that the specification prescribes.
ENTITIES = ("sub", "ses", "acq", "ce", "rec", "run", "desc")
OF_CASE = ("sub", "ses", "run")
SUFFIXES = {
    **dict.fromkeys(("t1", "t1n", "t1w", "t1c", "t1ce", "t1gd"), "T1w"),
    **dict.fromkeys(("t2", "t2w"), "T2w"),
    **dict.fromkeys(("flair", "t2f"), "FLAIR"),
    **dict.fromkeys(("pd", "pdw"), "PDw"),
    **dict.fromkeys(("t2s", "t2star"), "T2starw"),
    **dict.fromkeys(("mra", "tof"), "angio"),
}
ENHANCED = ("t1c", "t1ce", "t1gd")  # modalities with a contrast agent
AGENT = "gadolinium"
IMAGE = ("synthetic", "Synthesised image")
MAPS = {  # the entity `desc` and the description of a map, by the end of its name
    UNCALIBRATED: (
        "syntheticStdUncalibrated",
        "Standard deviation of the samples, not calibrated",
    ),
    STD: ("syntheticStd", "Standard deviation of the samples"),
    LOW: ("syntheticLow", "Lower end of the prediction intervals"),
    HIGH: ("syntheticHigh", "Upper end of the prediction intervals"),
}
CASE = "VoxlateCase"  # the key of a sidecar with the case's name, by which collisions are detected
STATED = ("model", "seed", "synth", "warnings", "bounds", "calibration", "split", "in_training")
Entities = Mapping[str, str]


def check_bids(out: Path, cases: Mapping[str, Path], ending: str) -> None:
    """Raise BadInput where images of these cases, given one scan of each, could not be laid out as BIDS."""
    if ending not in ENDINGS:
        raise BadInput(
            f"--bids: expected --format nii.gz or nii, which BIDS allows, found {ending[1:]}. Choose one of these."
        )
    if (out / DATASET).is_file():
        raise BadInput(
            f"{out}: expected an output folder beside the BIDS dataset, found the dataset itself ({DATASET}). Choose another --out; its derivatives/voxlate can be copied into the dataset."
        )
    prefixes = [(case, _join(entities_of(case, scan))) for case, scan in cases.items()]
    for sidecar in (out / PLACE).glob("sub-*/**/*.json"):
        prefixes.append((read_json(sidecar)[CASE], _join(_entities_in(sidecar.name))))
    owners = dict[str, str]()
    for case, prefix in prefixes:
        other = owners.setdefault(prefix, case)
        if other != case:
            raise BadInput(
                f"--bids: expected cases whose names differ in letters and digits, found {other} and {case}, which would both be {prefix}. Rename one of them, or choose another --out."
            )


def write_bids(folders: Sequence[Path], out: Path) -> list[str]:
    """Copy the images of finished cases to OUT/derivatives/voxlate; returns the modalities that BIDS has no suffix for.

    folders: OUT/<case> of each case.
    """
    root = out / PLACE
    outside = set[str]()
    with lock(root, SHARED_SECONDS):
        for folder in folders:
            outside |= _write_case(folder, root)
        _write_dataset(root, outside)
    return sorted(outside)


def entities_of(case: str, scan: Path) -> Entities:
    """Subject, session and run in the name of a case's scan, or of the case, that begins with sub-; else a subject of the case's letters and digits.

    Raises BadInput where no letter or digit could name one.
    """
    for name in (location_of(scan).name, case):
        if found := _entities_in(name):
            return found
    if not _label(case):
        raise BadInput(
            f"--bids: expected a case whose name has letters (A to Z) or digits for the label of sub-, found '{case}'. Rename the case."
        )
    return {"sub": _label(case)}


def _entities_in(name: str) -> Entities:
    """The entities of a case in a name that begins with sub-; {} for other names."""
    stem = name.split(".")[0]
    entities = dict(part.split("-", 1) for part in stem.split("_") if "-" in part)
    if not (stem.startswith("sub-") and all(value.isalnum() for value in entities.values())):
        return {}
    return {key: value for key, value in entities.items() if key in OF_CASE}


def image_name(case: Entities, modality: str, end: str) -> tuple[Path, str]:
    """The place of an image of a case, or of a map of it by the end of its name (such as _std), without ending, and its suffix.

    Modalities that the specification has no suffix for are named in capitals.
    """
    entities = {**case, "desc": MAPS.get(end, IMAGE)[0]}
    if modality in ENHANCED:
        entities["ce"] = AGENT
    suffix = SUFFIXES.get(modality.lower(), _label(modality).upper())
    parts = [f"{key}-{case[key]}" for key in ("sub", "ses") if key in case]
    return Path(*parts, "anat", f"{_join(entities)}_{suffix}"), suffix


def _join(entities: Entities) -> str:
    """The entities as the beginning of a file's name."""
    return "_".join(f"{key}-{entities[key]}" for key in ENTITIES if key in entities)


def _label(text: str) -> str:
    """The letters and digits of a text, which are all that a BIDS label may have."""
    return re.sub(r"[^A-Za-z0-9]", "", text)


def _write_case(folder: Path, root: Path) -> set[str]:
    """Write the images of a case with their sidecars, and remove those of an earlier synthesis."""
    provenance = read_provenance(folder / "provenance.json")
    grades = [said.grade for said in read_messages(provenance)]
    images = {modality_of(file): file for file in provenance["images"] if file.endswith(ENDINGS)}
    stripped = {
        image: is_stripped(read_volume(folder / file, image))
        for image, file in images.items()
        if not _end_of_map(image, images)
    }
    for old in root.glob("sub-*/**/*.json"):
        if read_json(old)[CASE] == folder.name:
            for path in old.parent.glob(f"{old.stem}.*"):
                path.unlink()
    outside = set()
    scan = next(iter(source_paths(provenance).values()), folder)
    entities = entities_of(folder.name, scan)
    for image, file in images.items():
        end = _end_of_map(image, images)
        modality = image.removesuffix(end)
        place, suffix = image_name(entities, modality, end)
        ending = file.removeprefix(without_ending(file))
        path, sidecar = (root / f"{place}{last}" for last in (ending, ".json"))
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            shutil.copyfile(folder / file, temporary)
        description = graded(f"{MAPS.get(end, IMAGE)[1]} ({suffix})", grades)
        facts = {
            "Description": f"{description}; computed from other scans, not measured; not for diagnosis.",
            "Units": unit_of(modality),
            CASE: folder.name,
            "VoxlateVersion": __version__,
            "VoxlateProvenance": {key: provenance[key] for key in STATED if key in provenance},
            "SkullStripped": stripped[modality],
        }
        _write_json(sidecar, facts)
        if suffix not in SUFFIXES.values():
            outside.add(suffix)
    return outside


def _end_of_map(image: str, images: Collection[str]) -> str:
    """The end that makes a name that of a map of another image; "" for an image."""
    ends = (end for end in MAPS if image.endswith(end) and image.removesuffix(end) in images)
    return next(ends, "")


def _write_dataset(root: Path, outside: Collection[str]) -> None:
    """Write the files of the whole dataset; the ignored suffixes of earlier cases remain."""
    made_by = {
        "Name": "voxlate",
        "Version": __version__,
        "Description": "Synthesis of one kind of medical scan from another; research software, not a medical device.",
    }
    description = {
        "Name": "Images synthesised by voxlate",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [made_by],
    }
    _write_json(root / DATASET, description)
    write_text(root / "README", README)
    ignored = root / IGNORED
    lines = ignored.read_text(encoding="utf-8").split() if ignored.is_file() else []
    new = [f"*_{suffix}.{ending}" for suffix, ending in product(sorted(outside), ("nii*", "json"))]
    write_text(ignored, "".join(f"{line}\n" for line in dict.fromkeys([*lines, *new])))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file as it is in BIDS, without the checksum of our own."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
