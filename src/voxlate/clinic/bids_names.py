"""Names of synthesised images in the Brain Imaging Data Structure (https://bids-specification.readthedocs.io)."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from voxlate.base.errors import BadInput
from voxlate.base.files import HIGH, LOW, STD, UNCALIBRATED, UNFAMILIAR
from voxlate.scans.formats.io import location_of

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
MAP_LABELS = {  # of `desc`, by the end of a map's name
    UNCALIBRATED: "syntheticStdUncalibrated",
    STD: "syntheticStd",
    LOW: "syntheticLow",
    HIGH: "syntheticHigh",
    UNFAMILIAR: "syntheticUnfamiliar",
}
IMAGE_LABEL = "synthetic"
Entities = Mapping[str, str]


@dataclass(frozen=True)
class BidsName:
    """The name of an image below the derivatives' folder.

    in_bids: whether the specification has the suffix; other suffixes are the modality's name in capitals.
    """

    entities: Entities
    suffix: str
    in_bids: bool

    @property
    def path(self) -> Path:
        """The place of the image, with the ending .nii.gz."""
        return folder_of(self.entities) / f"{self.stem}.nii.gz"

    @property
    def stem(self) -> str:
        """The file's name without an ending."""
        return f"{prefix_of(self.entities)}_{self.suffix}"


def folder_of(entities: Entities) -> Path:
    """The folder sub-X[/ses-Y]/anat of a case."""
    parts = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]
    return Path(*parts, "anat")


def prefix_of(entities: Entities) -> str:
    """The entities as the beginning of a file's name."""
    return "_".join(f"{key}-{entities[key]}" for key in SHARED if key in entities)


def image_name(case: Entities, modality: str, end: str) -> BidsName:
    """The BIDS name of an image of a case, or of a map of it, which the end of its name tells (such as _std)."""
    entities = {**case, "desc": MAP_LABELS.get(end, IMAGE_LABEL)}
    if modality in ENHANCED:
        entities["ce"] = AGENT
    suffix = SUFFIXES.get(modality.lower())
    return BidsName(entities, suffix or label(modality).upper(), suffix is not None)


def label(text: str) -> str:
    """The letters and digits of a text, which are all that a BIDS label may have."""
    return re.sub(r"[^A-Za-z0-9]", "", text)


def _entities_in(name: str) -> dict[str, str]:
    """The entities in a file's or case's name that begins with sub-; {} for other names."""
    stem = name.split(".")[0]
    entities = dict(part.split("-", 1) for part in stem.split("_") if "-" in part)
    sound = all(key.isalnum() and value.isalnum() for key, value in entities.items())
    return entities if stem.startswith("sub-") and sound else {}


def case_entities(case: str, scans: Collection[Path]) -> dict[str, str]:
    """The entities of a case: those that the names of all its scans share, else those of its own name.

    Raises BadInput where the scans name several subjects, or where no letter or digit could name one.
    """
    of_scans = [_entities_in(location_of(path).name) for path in scans]
    if not of_scans or not all(of_scans):
        of_scans = [_entities_in(case) or {"sub": label(case)}]
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
    return {
        key: value
        for key, value in of_scans[0].items()
        if key in FROM_SCANS and (key, value) in shared
    }


def entities_of(cases: Mapping[str, Collection[Path]]) -> dict[str, dict[str, str]]:
    """The entities of each case, given the paths of its scans; raises BadInput where two cases would have the same."""
    by_case = {}
    owners = dict[str, str]()
    for case, scans in cases.items():
        by_case[case] = case_entities(case, scans)
        prefix = prefix_of(by_case[case])
        other = owners.setdefault(prefix, case)
        if other != case:
            raise BadInput(
                f"--bids: expected cases whose names differ in letters and digits, found {other} and {case}, which would both be {prefix}. Rename one of them."
            )
    return by_case
