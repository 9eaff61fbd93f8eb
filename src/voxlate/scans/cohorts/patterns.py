"""Path patterns with {patient}, {case}, {modality}, {split}, {slice} and {time}, and folders that are called as a split."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from voxlate.base.groups import grouped
from voxlate.scans.cohorts.case_files import CaseFiles, CohortFiles, is_known
from voxlate.scans.cohorts.owners import is_person
from voxlate.scans.formats.io import without_ending
from voxlate.scans.layout_options import check_pattern

WILDCARDS = {"*": "[^/]*", "**/": "(?:.*/)?"}
WORDS = {
    "train": r"tr(?:ain(?:ing)?|n)?|development",
    "val": r"val(?:id(?:ation)?)?|va|vl|dev|tun(?:e|ing)",
    "test": r"test(?:ing)?|te|tst?|h[eo]ld[-_ ]?out",
}
SHORT = ("tr", "trn", "va", "vl", "dev", "te", "ts", "tst")  # which have other meanings, too
SPLIT_WORD = rf"(?P<split>(?i:{'|'.join(WORDS.values())}))"
# Of 'training_set', 'BraTS2020_ValidationData', '01_train', 'test_v2', CycleGAN's 'trainA' and nnU-Net's 'imagesTs'.
SPLIT_FOLDER = re.compile(
    rf"(?:(?P<group>.*)[-_ ])?(?P<files>(?i:images|labels)?){SPLIT_WORD}[-_ ]?"
    r"(?:(?i:data|set|images|cases|input)|(?P<side>[A-Za-z]\w*?))??(?:[-_ ]?v?\d{1,2})?"
)


def path_expression(pattern: str) -> re.Pattern[str]:
    """A path pattern as a regular expression; a name that comes twice must read the same twice, a modality in any case."""
    check_pattern(pattern)
    out = ""
    for part in re.split(r"(\{\w+\}|\*\*/|\*)", pattern):
        name = part[1:-1]
        if not part.startswith("{"):
            out += WILDCARDS.get(part) or re.escape(part)
        else:
            group = SPLIT_WORD if name == "split" else f"(?P<{name}>[^/]+)"
            again = f"(?i:(?P={name}))" if name == "modality" else f"(?P={name})"
            out += again if group in out else group
    return re.compile(out)


def split_named(word: str) -> str:
    """The split that a word means; "" for any other word."""
    return next((name for name, words in WORDS.items() if re.fullmatch(words, word.lower())), "")


def split_folders(paths: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The split that each folder above some paths states, and its modality or the side of CycleGAN's folders ("").

    A short word such as 'te' counts beside a folder of another split.
    """
    folders = {folder for path in paths for folder in PurePosixPath(path).parents}
    stated = {}
    short = set()
    for folder in folders:
        match = SPLIT_FOLDER.fullmatch(folder.name)
        if match is None:
            continue
        group, side = match["group"] or "", match["side"] or ""
        is_numbered = re.search(r"\d\d", group)
        modality = group if is_known(group) and not is_numbered else side
        if is_known(modality) or (side in ("", "A", "B") and not is_person(group)):
            stated[folder] = split_named(match["split"]), modality.lower()
            if match["split"].lower() in SHORT and not match["files"]:
                short.add(folder)
    beside = grouped((folder.parent, split) for folder, (split, _) in stated.items())
    return {
        str(folder): split
        for folder, split in stated.items()
        if folder not in short or len({*beside[folder.parent]}) > 1
    }


def split_of_name(case: str) -> str | None:
    """The split that the first or the last word of a case's name means; None for other names."""
    first, *others = re.split("[-_ ]", case)
    words = (word for word in (first, *others[-1:]) if word.lower() not in SHORT)
    return next(filter(None, map(split_named, words)), None)


def fits_any(path: str, expressions: Iterable[re.Pattern[str]]) -> bool:
    """Whether a path is one of these patterns."""
    return any(expression.fullmatch(path) for expression in expressions)


def study_of(
    match: re.Match[str], root: Path, splits: Mapping[str, tuple[str, str]]
) -> tuple[str | None, str, str | None]:
    """The patient (None: not stated), the study and the split (None) in a path.

    The study is root's name where the path states none; the split is that of a folder of another role, if need be;
    splits: see split_folders.
    """
    names = match.groupdict()
    patient, case, word = names.get("patient"), names.get("case"), names.get("split")
    if word:
        split: str | None = split_named(word)
    else:
        folders = [*PurePosixPath(match.string).parents][::-1]
        above = (folder for folder in folders if folder.name not in names.values())
        split = next((splits[str(folder)][0] for folder in above if str(folder) in splits), None)
    study = case or patient or root.resolve().name
    parts = [names[key] for key in ("time", "slice") if names.get(key)]
    if parts:
        patient = patient or study
    return patient, "_".join([study, *parts]), split


def state_pairs(cases: Sequence[CaseFiles], found: CohortFiles, root: Path) -> None:
    """State in `found.unpaired` that each modality is in cases of its own, where the cohort has several."""
    found.unpaired = ""
    scans = grouped(
        (name, os.path.relpath(path, root).replace(os.sep, "/"))
        for case in cases
        for name, path in case.files.items()
    )
    is_repeated = any(len(paths) > 1 for paths in scans.values())
    if len(scans) < 2 or not is_repeated or any(len(case.files) > 1 for case in cases):
        return
    shown = ", ".join(f"{name} in {paths[0]}" for name, paths in scans.items())
    pattern = joining_pattern([*scans.values()])
    advice = (
        f"Pass --pattern '{pattern}'"
        if pattern
        else "Pass --pattern with {case} where the names of a pair are equal"
    )
    found.unpaired = f"Expected cases with two modalities, found each modality in cases of its own ({shown}). {advice}, or give the scans of a pair one case in the table of voxlate manifest."


def joining_pattern(paths: Sequence[Sequence[str]]) -> str:
    """A pattern under which scans of several modalities have the same cases: their folders differ, their last numbers agree; "" for none.

    paths: of each modality.
    """
    parts = [[*without_ending(of_modality[0]).split("/")] for of_modality in paths]
    if len({*map(len, parts)}) > 1:
        return ""
    levels = []
    for names in zip(*(one[:-1] for one in parts)):
        differs = "*" if "{modality}" in levels else "{modality}"
        levels.append(names[0] if len({*names}) == 1 else differs)
    befores = [re.split(r"\d+\D*$", one[-1])[0] for one in parts]
    afters = {re.split(r"\d+", one[-1])[-1] for one in parts}
    before = befores[0] if len({*befores}) == 1 else f"*{befores[0][-1:]}"
    after = afters.pop() if len(afters) == 1 else "*"
    pattern = "/".join([*levels, f"{before}{{case}}{after}"])
    if "{modality}" not in levels:
        return ""
    expression = path_expression(pattern)
    cases = []
    for of_modality in paths:
        matches = [expression.fullmatch(without_ending(path)) for path in of_modality]
        cases.append({match["case"] for match in matches if match})
    return pattern if set.intersection(*cases) else ""
