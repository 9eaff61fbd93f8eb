"""Names, splits and masks that two cases or patients share by mistake."""

import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput
from voxlate.base.groups import grouped


def refuse_leak(cases: Iterable[Any], where: Path | str) -> None:
    """Raise BadInput where one patient is in two splits; cases: each with its patient ('' if unknown) and split."""
    splits: dict[str, str] = {}
    for case in cases:
        patient, split = case.patient, case.split
        if patient and split and splits.setdefault(patient, split) != split:
            raise BadInput(
                f"{where}: expected each patient in one split, found {patient} in {splits[patient]} and {split}. Put all cases of a patient into the same split, or pass --patients each if they are several patients."
            )


def refuse_similar_names(names: Iterable[str], what: str, where: Path | str) -> None:
    """Raise BadInput where two names of patients, or of cases, differ by case or blanks alone: they may be the same."""
    spellings: dict[str, str] = {}
    for name in sorted(set(names)):
        plain = "".join(unicodedata.normalize("NFKC", name).casefold().split())
        if spellings.setdefault(plain, name) != name:
            raise BadInput(
                f"{where}: expected one spelling of a {what}, found '{spellings[plain]}' and '{name}'. Write both the same way, or rename one if they are two {what}s."
            )


def sentences_on_shared_masks(masks: Iterable[tuple[str, Path]]) -> list[str]:
    """A sentence for each mask file that is used for several patients; masks: patient and mask of each case."""
    patients = grouped((mask.resolve(), patient) for patient, mask in masks)
    return [
        f"the mask {mask.name} fits all {len({*several})} patients for whom it is used"
        for mask, several in patients.items()
        if len({*several}) > 1
    ]
