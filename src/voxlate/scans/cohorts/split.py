"""The split of each patient; names, splits and masks that two cases or patients share by mistake."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, combinations, product
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput, first_of
from voxlate.base.groups import grouped
from voxlate.base.messages import Message, message
from voxlate.scans.cohorts.case_files import CaseFiles

Shares = tuple[float, float, float]

SPLITS = ("train", "val", "test")
FOLDS = 5
USUAL: Shares = (0.7, 0.15, 0.15)
LARGEST_HELD_OUT = 4  # at most one in so many training items is held out
WITHOUT_TEST: Shares = (0.8, 0.2, 0.0)
SMALL = 10  # patients; with fewer, a test patient is more useful in training
SMALLEST = 6  # patients below which one validates, whatever the shares


def usual_shares(patients: int) -> Shares:
    """The shares of train, val and test for a cohort of so many patients, where nobody states them."""
    if patients >= SMALL:
        return USUAL
    if patients >= SMALLEST:
        return WITHOUT_TEST
    return (patients - 1, 1, 0) if patients > 1 else (1, 0, 0)


def check_size(splits: Mapping[str, str]) -> list[Message]:
    """How the patients of a small cohort were split by default, and how to hold out a test patient; [] for others."""
    count, placed = len(splits), [*splits.values()]
    if count >= SMALL or "test" in placed:
        return []
    if count == 1:
        text = "Expected two patients or more, found one, who trains: none is held out for validation or test, so no image of a training can be scored. Add patients."
        return [message("few-patients", text, grade="caution", patients=1)]
    train, validation = placed.count("train"), placed.count("val")
    text = f"{count} patients: {train} for training, {validation} for validation, none for test, because there are fewer than {SMALL}"
    if train > 1:
        text += f"; for a test patient:  --shares {train - 1} {validation} 1"
    return [message("few-patients", text, patients=count)]


def check_modalities(cases: Iterable[CaseFiles], splits: Mapping[str, str]) -> list[Message]:
    """A caution on each split none of whose cases has a modality, or two together, that training cases have; on training, that others have."""
    names_in = grouped(
        (splits[case.patient], names)
        for case in cases
        for count in (1, 2)
        for names in combinations(sorted(case.files), count)
    )
    messages = []
    for split in sorted(names_in, key=SPLITS.index):
        others = [names_in[name] for name in names_in if "train" in (split, name)]
        lacking = sorted({*chain.from_iterable(others)}.difference(names_in[split]))
        # two together are named where no one is lacking
        if named := [names for names in lacking if len(names) == 1] or lacking:
            shown = first_of([" with ".join(names) for names in named], separator=" or ")
            then = "a model cannot learn from it" if split == "train" else "it cannot be scored"
            text = f"No case of the split {split} has {shown}: {then}."
            messages.append(message("split-lacks-modality", text))
    return messages


def held_out_order(cases: Iterable[CaseFiles], seed: int = 0) -> list[str]:
    """The patients in the order in which they are held out, by a hash of seed and name where all have the same modalities.

    Those with modalities that most have come first, as long as training keeps as many with the same modalities; then those
    who have the fewest.
    """
    groups = grouped((case.patient, case.files) for case in cases)
    present = {patient: frozenset(chain(*files)) for patient, files in groups.items()}
    patients_with = Counter(chain.from_iterable(present.values()))
    alike = Counter(present.values())

    def usual(patient: str) -> int:
        return sum(patients_with[name] for name in present[patient])

    first, chosen = list[str](), Counter[frozenset[str]]()
    for patient in sorted(present, key=lambda name: (-usual(name), patient_order(seed, name))):
        there, held_out = (
            sum(count for names, count in several.items() if present[patient] <= names)
            for several in (alike, chosen)
        )
        if 2 * (held_out + 1) <= there:
            first.append(patient)
            chosen[present[patient]] += 1
    rest = present.keys() - {*first}
    return first + sorted(rest, key=lambda name: (usual(name), patient_order(seed, name)))


def hold_out(cases: list[CaseFiles], count: int) -> list[CaseFiles]:
    """The cases with `count` training items moved to validation, patient by patient as `held_out_order` states."""
    learning = [case for case in cases if case.split == "train"]
    of_patient = Counter(case.patient for case in learning)
    wanted = min(count, of_patient.total() // LARGEST_HELD_OUT)
    held_out = set[str]()
    for patient in held_out_order(learning)[:-1]:  # one patient stays in training
        if sum(of_patient[name] for name in held_out) < wanted:
            held_out.add(patient)
    moved = {case.case: replace(case, split="val") for case in learning if case.patient in held_out}
    return [moved.get(case.case, case) for case in cases]


def check_known(split: str | None, splits: Collection[str | None]) -> None:
    """Raise BadInput if cases of a split are asked for where no split is known; splits: of each case."""
    if split is not None and splits and not any(splits):
        raise BadInput(
            f"--split: expected cases whose split is known, found none: neither the cohort nor the training of the model states a split of these cases ({len(splits)}). Leave out --split and choose cases by --exclude, or give a manifest with a column split."
        )


def split_patients(
    cases: Sequence[CaseFiles], seed: int = 0, shares: Shares | None = None
) -> dict[str, str]:
    """The split of each patient: the stated one, else by shares of train, val and test patients.

    Patients are held out as `held_out_order` states, so the order of files does not matter. Two patients or more leave
    at least one for validation, four or more at least one for test; shares of 0 leave none. Training gets its share or
    more where another split has two patients to give. Shares of whole numbers
    above 1 are counts of patients, which must add up to all. shares: by default as `usual_shares` states.
    """
    stated = {case.patient: case.split for case in cases if case.split is not None}
    if stated and shares is None:
        return stated
    patients = held_out_order(cases, seed)
    count = len(patients)
    wanted = shares or usual_shares(count)
    are_counts = sum(wanted) > 1 + 1e-6
    fits = abs(sum(wanted) - (count if are_counts else 1)) <= 1e-6  # never of a sum that is NaN
    whole = not are_counts or all(share % 1 == 0 for share in wanted)
    if not (fits and whole and min(wanted) >= 0 < wanted[0]):
        shown = " ".join(f"{share:g}" for share in wanted)
        raise BadInput(
            f"--shares: expected shares for train, val and test that add up to 1, or whole counts that add up to the {count} patients, with some for train, found {shown}. Change them."
        )
    if stated:
        raise BadInput(
            f"--shares: expected a cohort whose patients nothing places in splits, found folders, names or a list that place {len(stated)}. Leave out --shares; to place them otherwise, write a manifest (voxlate manifest) and change or remove its column split, or take cases out (--exclude)."
        )
    numbers = [round(share) for share in wanted] if are_counts else _numbers(wanted, count)
    for name, share, number in zip(SPLITS, shares or (), numbers):
        if share > 0 and number == 0:
            raise BadInput(
                f"--shares: expected 0 for a split, or a share that gets a patient, found {share:g} of {count} patients for {name}. Write 0, or numbers of patients."
            )
    train, val, test = numbers
    return dict(zip(patients, ["val"] * val + ["test"] * test + ["train"] * train))


def _numbers(shares: Shares, count: int) -> list[int]:
    """How many of so many patients train, validate and test: the nearest numbers.

    Rounding up both leaves training below its share (6 of 10 for 0.7): the larger set, or test, then gives one.
    """
    val = max(1, round(shares[1] * count)) if shares[1] > 0 and count >= 2 else 0
    test = max(1, round(shares[2] * count)) if shares[2] > 0 and count >= 4 else 0
    val = min(val, count - 1)
    test = min(test, count - 1 - val)
    if val + test > count * (1 - shares[0]) + 1e-6:
        if 1 < test >= val:
            test -= 1
        elif val > test > 0:
            val -= 1
    return [count - val - test, val, test]


def fold_splits(
    splits: Mapping[str, str],
    fold: int,
    where: object,
    stated: Mapping[str, int] | None = None,
) -> dict[str, str]:
    """The split of each patient in a fold, 0 to 4: one part in five validates, the rest trains, test stays test.

    splits: of each patient without folds. The parts are as equal as can be, and depend on the patients' names alone.
    stated: the fold in which each patient validates, where a manifest states it.
    """
    if not 0 <= fold < FOLDS:
        raise BadInput(f"--fold: expected 0 to {FOLDS - 1}, found {fold}. Choose one of these.")
    folds = stated
    if not folds:
        patients = [patient for patient, split in splits.items() if split != "test"]
        if len(patients) < FOLDS:
            raise BadInput(
                f"{where}: expected {FOLDS} patients or more outside the test split for folds, found {len(patients)}. Prepare more, or train without --fold and --folds."
            )
        patients.sort(key=lambda patient: patient_order(0, patient))
        folds = {patient: number % FOLDS for number, patient in enumerate(patients)}
    in_fold = dict(splits)
    for patient, split in splits.items():
        if split != "test":
            in_fold[patient] = "val" if folds.get(patient) == fold else "train"
    for name, does in (("val", "validate"), ("train", "train")):
        if name not in in_fold.values():
            raise BadInput(
                f"{where}: expected patients who {does} in fold {fold} of the manifest's column 'fold', found none. Choose another --fold, or prepare with other folds."
            )
    return in_fold


def patient_order(seed: int, name: str) -> bytes:
    """The key by which patients are sorted, so that the order of their files does not matter."""
    return hashlib.blake2b(f"{seed}\x1f{name}".encode(), digest_size=8).digest()


def refuse_leak(cases: Iterable[Any], where: Path | str) -> None:
    """Raise BadInput where one patient is in two splits or folds; cases: each with its patient ('' if unknown), split and fold."""
    places: dict[tuple[str, str], Any] = {}
    for case, what in product(cases, ("fold", "split")):
        patient, place = case.patient, getattr(case, what)
        first = places.setdefault((patient, what), place)
        if patient and first != place:
            raise BadInput(
                f"{where}: expected each patient in one {what}, found {patient} in {first} and {place}. Put all cases of a patient into the same {what}, or pass --patients each if they are several patients."
            )


def refuse_similar_names(names: Iterable[str], where: Path | str) -> None:
    """Raise BadInput where two names of patients, or of cases, differ by case or blanks alone: they may be the same."""
    spellings: dict[str, str] = {}
    for name in sorted(set(names)):
        plain = "".join(unicodedata.normalize("NFKC", name).casefold().split())
        if spellings.setdefault(plain, name) != name:
            raise BadInput(
                f"{where}: expected one spelling of a patient, found '{spellings[plain]}' and '{name}'. Write both the same way, or rename one if they are two."
            )
