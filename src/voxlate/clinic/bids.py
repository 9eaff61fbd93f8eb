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
    UNFAMILIAR,
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
from voxlate.synthesis.provenance import SHARED_SECONDS, read_provenance

PLACE = Path("derivatives", "voxlate")
BIDS_VERSION = "1.10.0"
DATASET = "dataset_description.json"
IGNORED = ".bidsignore"
ENDINGS = (".nii.gz", ".nii")  # the formats that BIDS allows
README = """Images synthesised by voxlate. They are computed from other scans, not measured.

Research software, not a medical device: the images are not for diagnosis. The JSON file beside each image names the
model, its weights and settings, the source scans, and warnings about the image. voxlate is described there, too.
"""
# Entities of a scan that its synthesised images keep, in the order that the specification prescribes.
SHARED = ("sub", "ses", "acq", "ce", "rec", "run", "desc")
FROM_SCANS = ("sub", "ses", "acq", "rec", "run")
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
    UNFAMILIAR: (
        "syntheticUnfamiliar",
        "Distance of the input from the distribution of the calibration's scans",
    ),
}
CASE = "VoxlateCase"  # the key of a sidecar with the case's name, by which collisions are detected
STATED = ("model", "seed", "synth", "warnings", "bounds", "calibration", "split", "in_training")
Entities = Mapping[str, str]


def check_bids(out: Path, cases: Mapping[str, Collection[Path]], ending: str) -> None:
    """Raise BadInput where images of these cases, given the paths of their scans, could not be laid out as BIDS."""
    if ending not in ENDINGS:
        raise BadInput(
            f"--bids: expected --format nii.gz or nii, which BIDS allows, found {ending[1:]}. Choose one of these."
        )
    if (out / DATASET).is_file():
        raise BadInput(
            f"{out}: expected an output folder beside the BIDS dataset, found the dataset itself ({DATASET}). Choose another --out; its derivatives/voxlate can be copied into the dataset."
        )
    for case, entities in entities_of(cases).items():
        for path in _files_of(out / PLACE, entities):
            owner = read_json(path).get(CASE) if path.suffix == ".json" else case
            if owner != case:
                raise BadInput(
                    f"{path}: expected images of {case}, found those of {owner}, whose name has the same letters and digits. Rename one of the cases, or choose another --out."
                )


def write_bids(
    folders: Sequence[Path], out: Path, cases: Mapping[str, Collection[Path]]
) -> list[str]:
    """Copy the images of finished cases to OUT/derivatives/voxlate; returns the modalities that BIDS has no suffix for.

    folders: OUT/<case> of each case; cases: see check_bids.
    """
    root = out / PLACE
    outside = set[str]()
    entities = entities_of(cases)
    with lock(root, SHARED_SECONDS):
        for folder in folders:
            outside |= _write_case(folder, root, entities[folder.name])
        _write_dataset(root, outside)
    return sorted(outside)


def entities_of(cases: Mapping[str, Collection[Path]]) -> dict[str, Entities]:
    """The entities of each case, given the paths of its scans; raises BadInput where two cases would have the same."""
    by_case = {}
    owners = dict[str, str]()
    for case, scans in cases.items():
        by_case[case] = case_entities(case, scans)
        prefix = _prefix_of(by_case[case])
        other = owners.setdefault(prefix, case)
        if other != case:
            raise BadInput(
                f"--bids: expected cases whose names differ in letters and digits, found {other} and {case}, which would both be {prefix}. Rename one of them."
            )
    return by_case


def case_entities(case: str, scans: Collection[Path]) -> Entities:
    """The entities of a case: those that the names of all its scans share, else those of its own name.

    Raises BadInput where the scans name several subjects, or where no letter or digit could name one.
    """
    of_scans = [_entities_in(location_of(path).name) for path in scans]
    if not of_scans or not all(of_scans):
        of_scans = [_entities_in(case) or {"sub": _label(case)}]
    shared = set.intersection(*(set(entities.items()) for entities in of_scans))
    subjects = sorted({entities["sub"] for entities in of_scans})
    if len(subjects) > 1:
        raise BadInput(
            f"--bids: expected scans of one subject in {case}, found sub-{subjects[0]} and sub-{subjects[1]}. Check the files of this case."
        )
    if not subjects[0]:
        raise BadInput(
            f"--bids: expected a case whose name has letters (A to Z) or digits for the label of sub-, found '{case}'. Rename the case."
        )
    return {key: value for key, value in of_scans[0].items() if (key, value) in shared}


def image_name(case: Entities, modality: str, end: str) -> tuple[Path, str]:
    """The place of an image of a case, or of a map of it by the end of its name (such as _std), without ending, and its suffix.

    Modalities that the specification has no suffix for are named in capitals.
    """
    entities = {**case, "desc": MAPS.get(end, IMAGE)[0]}
    if modality in ENHANCED:
        entities["ce"] = AGENT
    suffix = SUFFIXES.get(modality.lower(), _label(modality).upper())
    return _folder_of(case) / f"{_prefix_of(entities)}_{suffix}", suffix


def _folder_of(entities: Entities) -> Path:
    """The folder sub-X[/ses-Y]/anat of a case."""
    parts = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]
    return Path(*parts, "anat")


def _prefix_of(entities: Entities) -> str:
    """The entities as the beginning of a file's name."""
    return "_".join(f"{key}-{entities[key]}" for key in SHARED if key in entities)


def _label(text: str) -> str:
    """The letters and digits of a text, which are all that a BIDS label may have."""
    return re.sub(r"[^A-Za-z0-9]", "", text)


def _entities_in(name: str) -> dict[str, str]:
    """The entities of a scan in a file's or case's name that begins with sub-; {} for other names."""
    stem = name.split(".")[0]
    entities = dict(part.split("-", 1) for part in stem.split("_") if "-" in part)
    sound = all(key.isalnum() and value.isalnum() for key, value in entities.items())
    if not (stem.startswith("sub-") and sound):
        return {}
    return {key: value for key, value in entities.items() if key in FROM_SCANS}


def _files_of(root: Path, entities: Entities) -> list[Path]:
    """The files of synthesised images with these entities."""
    files = (root / _folder_of(entities)).glob(f"*desc-{IMAGE[0]}*")
    return [path for path in files if _entities_in(path.name) == entities]


def _write_case(folder: Path, root: Path, entities: Entities) -> set[str]:
    """Write the images of a case with their sidecars, and remove those of an earlier synthesis."""
    provenance = read_provenance(folder / "provenance.json")
    grades = [said.grade for said in read_messages(provenance)]
    images = {modality_of(file): file for file in provenance["images"] if file.endswith(ENDINGS)}
    stripped = {
        image: is_stripped(read_volume(folder / file, image))
        for image, file in images.items()
        if not _end_of_map(image, images)
    }
    written = set[Path]()
    outside = set()
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
            "Units": "1" if end == UNFAMILIAR else unit_of(modality),
            CASE: folder.name,
            "VoxlateVersion": __version__,
            "VoxlateProvenance": {key: provenance[key] for key in STATED if key in provenance},
            "SkullStripped": stripped[modality],
        }
        _write_json(sidecar, facts)
        written |= {path, sidecar}
        if suffix not in SUFFIXES.values():
            outside.add(suffix)
    for old in set(_files_of(root, entities)) - written:
        old.unlink()
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
