"""Path patterns with {patient}, {case}, {modality} and {split}, and folders that are called as a split."""

import re
from collections.abc import Iterable
from pathlib import Path

from voxlate.base.errors import BadInput
from voxlate.scans.cohorts.patient_names import identifies

WILDCARDS = {"*": "[^/]*", "**/": "(?:.*/)?"}
NAMES = ("patient", "case", "modality", "split")
WORDS = {
    "train": r"tr(?:ain(?:ing)?)?|development",
    "val": r"val(?:id(?:ation)?)?|tun(?:e|ing)",
    "test": r"test(?:ing)?|ts|h[eo]ld[-_ ]?out",
}
SPLIT_WORD = rf"(?P<split>(?i:{'|'.join(WORDS.values())}))"
# Of 'training_set', 'BraTS2020_ValidationData', '01_train', 'test_v2', CycleGAN's 'trainA' and nnU-Net's 'imagesTs'.
SPLIT_FOLDER = re.compile(
    rf"(?:(?P<group>.*)[-_ ])?(?P<files>(?i:images|labels)?){SPLIT_WORD}[-_ ]?"
    r"(?:(?i:data|set|images|cases)|(?P<side>[AB]))?(?:[-_ ]?v?\d{1,2})?"
)


def path_expression(pattern: str) -> re.Pattern[str]:
    """A path pattern as a regular expression; a name that comes twice must read the same twice, a modality in any case."""
    out = ""
    for part in re.split(r"(\{\w+\}|\*\*/|\*)", pattern):
        name = part[1:-1]
        if not part.startswith("{"):
            out += WILDCARDS.get(part) or re.escape(part)
        elif name in NAMES:
            group = SPLIT_WORD if name == "split" else f"(?P<{name}>[^/]+)"
            again = f"(?i:(?P={name}))" if name == "modality" else f"(?P={name})"
            out += again if group in out else group
        else:
            raise BadInput(
                f"pattern '{pattern}': expected {{patient}}, {{case}}, {{modality}} or {{split}}, found {part}. Use these names."
            )
    return re.compile(out)


def split_named(word: str) -> str:
    """The split that a word of SPLIT_WORD means."""
    return next(name for name, words in WORDS.items() if re.fullmatch(words, word.lower()))


def split_in(folder: str) -> tuple[str, str] | None:
    """The split that the name of a folder states, and the side of CycleGAN's folders as a modality ("" for others)."""
    match = SPLIT_FOLDER.fullmatch(folder)
    if match is None:
        return None
    group = match["group"] or ""
    if identifies(group) and not re.fullmatch(r"\d\d?", group):
        return None
    if len(match["split"]) == 2 and not match["files"]:  # imagesTr, but no folder 'tr'
        return None
    return split_named(match["split"]), (match["side"] or "").lower()


def split_of_name(case: str) -> str | None:
    """The split that the first or the last word of a case's name means; None for other names."""
    first, *others = re.split("[-_ ]", case)
    ends = (re.fullmatch(SPLIT_WORD, word) for word in (first, *others[-1:]))
    return next((split_named(end["split"]) for end in ends if end and len(end["split"]) > 2), None)


def fits_any(path: str, expressions: Iterable[re.Pattern[str]]) -> bool:
    """Whether a path is one of these patterns."""
    return any(expression.fullmatch(path) for expression in expressions)


def study_of(match: re.Match[str], root: Path) -> tuple[str | None, str, str | None]:
    """The patient (None: not stated), the study and the split (None) in a path.

    The study is root's name where the path states none; the split is that of a folder of another role, if need be.
    """
    names = match.groupdict()
    patient, word = names.get("patient"), names.get("split")
    if word:
        split: str | None = split_named(word)
    else:
        folders = [name for name in match.string.split("/")[:-1] if name not in names.values()]
        split = next((stated[0] for stated in map(split_in, folders) if stated), None)
    return patient, names.get("case") or patient or root.resolve().name, split
