"""Synthesised images as a BIDS derivative: OUT/derivatives/voxlate, which is valid by itself and may be given away."""

import json
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
    relative_to,
    whole_file,
    write_text,
)
from voxlate.clinic.bids_names import (
    IMAGE_LABEL,
    MAP_LABELS,
    Entities,
    entities_of,
    folder_of,
    image_name,
    prefix_of,
)
from voxlate.evaluation.scoring.scored_images import modality_of
from voxlate.scans.formats.io import location_of, read_volume, without_ending
from voxlate.scans.images.mask import is_stripped
from voxlate.scans.images.units import unit_of
from voxlate.synthesis.output_folder import SHARED_SECONDS
from voxlate.synthesis.provenance import provenance_of, read_provenance, source_paths

PLACE = Path("derivatives", "voxlate")
BIDS_VERSION = "1.10.0"
DATASET = "dataset_description.json"
IGNORED = ".bidsignore"
ENDINGS = (".nii.gz", ".nii")  # the formats that BIDS allows
README = """Images synthesised by voxlate. They are computed from other scans, not measured.

Research software, not a medical device: the images are not for diagnosis. The JSON file beside each image names the
model, its weights and settings, the source scans, and warnings about the image. voxlate is described there, too.
"""
CASE = "VoxlateCase"  # the key of a sidecar with the case's name, by which collisions are detected
DESCRIPTIONS = {
    "": "Synthesised image",
    UNCALIBRATED: "Standard deviation of the samples, not calibrated",
    STD: "Standard deviation of the samples",
    LOW: "Lower end of the prediction intervals",
    HIGH: "Upper end of the prediction intervals",
    UNFAMILIAR: "Distance of the input from the distribution of the calibration's scans",
}
STATED = ("model", "seed", "synth", "warnings", "bounds", "calibration", "split", "in_training")


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


def _files_of(root: Path, entities: Entities) -> list[Path]:
    """The files of synthesised images with these entities."""
    wanted = _entities_before(f"{prefix_of(entities)}_desc-")
    files = (root / folder_of(entities)).glob(f"*desc-{IMAGE_LABEL}*")
    return [path for path in files if _entities_before(path.name) == wanted]


def _entities_before(name: str) -> list[str]:
    """The entities of a file's name without those that depend on the image."""
    parts = name.split(".")[0].split("_")
    return [part for part in parts if "-" in part and not part.startswith(("ce-", "desc-"))]


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
        links: dict[str, str] = {}  # the datasets that earlier cases come from
        if (root / DATASET).is_file():
            links = read_json(root / DATASET).get("DatasetLinks", {})
        for folder in folders:
            sources = _sources(folder, root, links)
            outside |= _write_case(folder, root, entities[folder.name], sources)
        _write_dataset(root, links, outside)
    return sorted(outside)


def _write_case(folder: Path, root: Path, entities: Entities, sources: Sequence[str]) -> set[str]:
    """Write the images of a case with their sidecars, and remove those of an earlier synthesis."""
    provenance = read_provenance(folder / "provenance.json")
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
        name = image_name(entities, modality, end)
        ending = file.removeprefix(without_ending(file))
        path = (root / name.path).with_name(f"{name.stem}{ending}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            shutil.copyfile(folder / file, temporary)
        sidecar = path.with_name(f"{name.stem}.json")
        facts = {
            "Description": f"{DESCRIPTIONS[end]} ({name.suffix}); computed from other scans, not measured; not for diagnosis.",
            "Units": "1" if end == UNFAMILIAR else unit_of(modality),
            CASE: folder.name,
            "VoxlateVersion": __version__,
            "VoxlateProvenance": {key: provenance[key] for key in STATED if key in provenance},
            "SkullStripped": stripped[modality],
            **({"Sources": sources} if sources else {}),
        }
        _write_json(sidecar, facts)
        written |= {path, sidecar}
        if not name.in_bids:
            outside.add(name.suffix)
    for old in set(_files_of(root, entities)) - written:
        old.unlink()
    return outside


def _end_of_map(image: str, images: Collection[str]) -> str:
    """The end that makes a name that of a map of another image; "" for an image."""
    ends = (end for end in MAP_LABELS if image.endswith(end) and image.removesuffix(end) in images)
    return next(ends, "")


def _sources(folder: Path, root: Path, links: dict[str, str]) -> list[str]:
    """BIDS URIs of a case's scans that are in BIDS datasets; adds the datasets to `links` by their name."""
    uris = []
    for path in source_paths(provenance_of(folder)).values():
        file = location_of(path)
        dataset = next((folder for folder in file.parents if (folder / DATASET).is_file()), None)
        if dataset is None:
            continue
        place = relative_to(root, dataset)
        names = {link: name for name, link in links.items()}
        name = names.get(place) or f"raw{len(links) + 1 if links else ''}"
        links[name] = place
        uris.append(f"bids:{name}:{file.relative_to(dataset).as_posix()}")
    return uris


def _write_dataset(root: Path, links: Mapping[str, str], outside: Collection[str]) -> None:
    """Write the files of the whole dataset; the ignored suffixes of earlier cases remain."""
    description: dict[str, Any] = {
        "Name": "Images synthesised by voxlate",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": "voxlate",
                "Version": __version__,
                "Description": "Synthesis of one kind of medical scan from another; research software, not a medical device.",
            }
        ],
    }
    if links:
        description["DatasetLinks"] = dict(links)
    _write_json(root / DATASET, description)
    write_text(root / "README", README)
    ignored = root / IGNORED
    lines = ignored.read_text(encoding="utf-8").split() if ignored.is_file() else []
    new = [f"*_{suffix}.{ending}" for suffix, ending in product(sorted(outside), ("nii*", "json"))]
    write_text(ignored, "".join(f"{line}\n" for line in dict.fromkeys([*lines, *new])))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file as it is in BIDS, without the checksum of our own."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
