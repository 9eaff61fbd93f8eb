"""The layout of a cohort that its own names state, where no option does."""

import os
import re
from pathlib import Path

from voxlate.base.errors import BadInput
from voxlate.base.files import read_json
from voxlate.scans.cohorts.case_files import LABELS, MASKS, modality_name
from voxlate.scans.cohorts.choice import quote_some
from voxlate.scans.cohorts.patient_names import SESSION
from voxlate.scans.cohorts.presets import Preset, load_preset
from voxlate.scans.formats.dicom import is_dicom_folder
from voxlate.scans.formats.io import scan_endings, without_ending
from voxlate.scans.images.units import UNITS

KNOWN = [
    "t1w",
    "t2w",
    "pdw",
    "t1gd",
    "dwi",
    "adc",
    "mri",
    "cbct",
    "ctp",
    "qsm",
    "phase",
    "mag",
    "fa",
    "md",
    "dsa",
]


def recognise(root: Path) -> Preset | None:
    """The layout that a folder's own files state: BIDS, nnU-Net, CycleGAN's, or a folder for each modality."""
    if (root / "dataset_description.json").is_file():
        return load_preset("bids")
    if (root / "dataset.json").is_file() and any(root.glob("images*")):
        return _nnunet(root)
    if (root / "trainA").is_dir() and (root / "trainB").is_dir():
        return Preset(
            files={
                "a": ["trainA/{case}", "valA/{case}", "testA/{case}"],
                "b": ["trainB/{case}", "valB/{case}", "testB/{case}"],
            }
        )
    if _are_modalities(root):
        bare = "{modality}/{case}"
        return Preset(patterns=[f"{bare}_{{modality}}", f"{bare}-{{modality}}", bare])
    return None


def _are_modalities(root: Path) -> bool:
    """Whether root's folders are called as modalities and hold scans of many cases: MR/01.png, CT/01.png."""
    folders = 0
    have_cases = False
    for folder in root.iterdir():
        try:
            names = [] if folder.name.startswith(".") else os.listdir(folder)
        except OSError:  # a file, or a folder that may not be read
            continue
        stems = [without_ending(name) for name in names if name.lower().endswith(scan_endings())]
        if not stems:
            continue
        if not _is_known(folder.name) or is_dicom_folder(folder):
            return False
        folders += 1
        have_cases = have_cases or not all(map(_is_known, stems))
    return folders > 1 and have_cases


def _nnunet(root: Path) -> Preset:
    """nnU-Net's raw data sets: imagesTr/CASE_0000.nii.gz, its channels named by dataset.json, labelsTr/CASE.nii.gz."""
    stated = read_json(root / "dataset.json")
    channels = None
    if isinstance(stated, dict):
        channels = stated.get("channel_names") or stated.get("modality")
    if not isinstance(channels, dict) or not channels:
        raise BadInput(
            f"{root}/dataset.json: expected channel_names, as nnU-Net writes them, found none. Add them, or pass --pattern 'imagesTr/{{case}}_{{modality}}'."
        )
    aliases = load_preset("bids").aliases
    files: dict[str, list[str]] = {"seg": ["labelsTr/{case}", "labelsTs/{case}"]}
    for number, channel in channels.items():
        name = modality_name(re.sub(r"[^\w-]+", "_", str(channel)).strip("_"), aliases)
        file = f"{{case}}_{int(number):04d}"
        files[name] = [f"imagesTr/{file}", f"imagesTs/{file}"]
    return Preset(files=files)


def flat_pattern(root: Path, paths: list[str]) -> str:
    """The pattern of scans in one folder: of one case, whose names are modalities, or of many cases."""
    stems = [without_ending(path) for path in paths]
    if all(_is_known(stem) for stem in stems):
        return "{modality}"
    for mark in "_-":
        parts = [stem.rpartition(mark) for stem in stems]
        if all(case and _is_known(name) for case, _, name in parts):
            return f"{{case}}{mark}{{modality}}"
    if any((root / path).is_dir() for path in paths):
        raise BadInput(
            f"{root}: expected a folder for each case with a folder for each series, found DICOM files right in {quote_some(paths)}. Pass --preset FILE.toml, whose tables [series.t1], … choose series by their tags (docs/guides/dicom.md; voxlate info FOLDER lists them), or put each series into a folder named as its modality."
        )
    raise BadInput(
        f"{root}: expected a folder for each case, or names that end with a modality, found {len(paths)} scans of another form ({quote_some(paths)}). Pass --pattern '{{case}}_{{modality}}' for many cases in one folder, or '{{modality}}' where they are one patient's."
    )


def states_study(name: str) -> bool:
    """Whether the name of a modality begins with a session: study1_t1w."""
    parts = re.fullmatch(r"(.+)[_-]([^_-]+)", name)
    return parts is not None and _is_known(parts[2]) and SESSION.fullmatch(parts[1]) is not None


def _is_known(name: str) -> bool:
    """Whether a name is that of a known modality, mask or label map, or begins with one ('cta2')."""
    lower = name.lower()
    return lower in (*UNITS, *MASKS, *LABELS, *KNOWN) or re.split("[^a-z]", lower)[0] in UNITS
