"""The cases that the rows of a cohort's manifest make: each with its patient and a file for each modality."""

import fnmatch
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from voxlate.base.errors import BadInput, as_list, did_you_mean, first_of
from voxlate.base.files import safe_name
from voxlate.base.groups import grouped
from voxlate.scans.formats.dicom import SeriesInfo
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.units import UNITS

MOST_QUOTED = 3  # names or paths in a message
FOLD = re.compile(r"(?<![a-z])folds?[-_ ]?(\d{1,3})(?!\d)", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """A file of a cohort: what its path, its table or its tags state.

    patient, split, fold: None where nothing states them; series: the DICOM series.
    """

    patient: str | None
    case: str
    modality: str
    path: Path
    split: str | None = None
    fold: int | None = None
    series: SeriesInfo | None = None


@dataclass
class Exclusion:
    """The option --exclude, as patterns with * and ? of cases or patients to leave out, and the record of its effects."""

    patterns: Sequence[str] = ()
    known: set[str] = field(default_factory=set)  # names of all cases and patients
    left_out: set[str] = field(default_factory=set)  # cases

    def keep_case(self, case: str, patient: str | None) -> bool:
        """Whether a case counts."""
        names = {case, patient or case}
        self.known |= names
        if any(fnmatch.filter(names, pattern) for pattern in self.patterns):
            self.left_out.add(case)
            return False
        return True

    def check(self, root: Path) -> None:
        """Raise BadInput for a pattern that fits none: a typing error."""
        for pattern in self.patterns:
            if not fnmatch.filter(self.known, pattern):
                near = did_you_mean(pattern, self.known)
                raise BadInput(
                    f"--exclude: expected the name of a case or patient in {root}, or a pattern such as 'site2_*', found '{pattern}', which fits none. {near or 'Change it, or drop the option.'}"
                )


def quote_some(names: Sequence[str]) -> str:
    """The first of many names or paths in quotes, for a sentence."""
    return first_of([f"'{name}'" for name in names], MOST_QUOTED)


def as_names(names: Sequence[str] | str | None) -> tuple[str, ...]:
    """Names, of which some may stand in one text with commas between them."""
    words = ",".join(as_list(names or ())).split(",")
    return tuple(filter(None, map(str.strip, words)))


MASKS = ("mask", "brainmask")
LABELS = ("seg", "lesion", "labels", "label", "segmentation")
# Words of names, without accents. MASK: in English, German, French, Spanish and Italian, also behind a word (hirnmaske).
MASK = re.compile(r"(?P<of>[a-z\d]*?)s?(?:maske?s?|masque|mascara|maschera|msk)\d*")
SEGMENTATION = re.compile(
    r"segs?|labels?|segment(?:ation|ierung|acion|azione)s?|rois?|l(?:e|a|ae)sione?"
)
# Of a part of the body, which no mask of a body is of.
PART = re.compile(
    r"lesion(?:s|es|i)|la?esionen|stroke|schlaganfall|ictus|core|penumbra|kern|(?:tumou?r|infar[ck]t|infarto|metasta|ha?emorrh|hamorrh|blutung|edem|oedem|odem|glio)[a-z]*"
)
BODY = "brain head body skull bet hirn gehirn kopf korper koerper cerveau tete corps cerebro cabeza cuerpo cervello testa corpo foreground binary bin desc space res final new"
MOST_LABELS = 256  # values in a label map; an image has more, or fractions, or values below zero
CT_REACHES_HU = -200  # what a CT reaches
UNNAMED = "scan"  # a modality that neither a pattern nor a name states
OTHERS = "t1w t2w pdw t1gd dwi adc mri cbct ctp qsm phase mag fa md dsa pet pt source target input output hbv pdfs"
KNOWN = {*UNITS, *MASKS, *LABELS, *OTHERS.split()}


@dataclass(frozen=True)
class CaseFiles:
    """One study of a patient: a file for each modality, a label map for each name, and a mask.

    A file may also be a DICOM folder, 'FOLDER#key' for one series of it, or either with '#peak+8s' for one frame, or
    'FILE.npy#channel=0' for a slice of an array file. patient: '' while nothing has stated it (see owners.py).
    fold: in which a manifest says that the patient validates.
    """

    case: str
    patient: str
    split: str | None
    files: dict[str, Path]
    mask: Path | None = None
    labels: dict[str, Path] = field(default_factory=dict)
    fold: int | None = None

    @property
    def paths(self) -> dict[str, Path]:
        """All its files: scans and label maps by their names, and "mask"."""
        mask = {} if self.mask is None else {"mask": self.mask}
        return {**self.files, **self.labels, **mask}


@dataclass
class CohortFiles:
    """The cases of a cohort, with sentences on files that belong to no case, cannot be read, or needed a guess.

    Args:
        cases: each with its name, patient, split, and the files of its scans, mask and label maps.
        root: the folder of the cohort.
        manifest: its table, where it has one.
        unclaimed: sentences on files that belong to no case.
        unread: sentences on files that cannot be read.
        guessed: sentences on what was assumed.
        unowned: those of them on pictures of slices whose patients nothing states.
        questions: why the patients of some cases must be stated.
        undecided: those cases.
        unpaired: a sentence where scans of different modalities are in different cases alone, else "".
        ignored: a sentence on lists that may state splits and could not be read, else ""; it is also in unread.
        without_scan: names of cases with label maps or a mask, and no scan.

    Example:
        >>> import voxlate
        >>> found = voxlate.manifest("COHORT")
        >>> [case.case for case in found.cases][:2], found.unclaimed
        (['case0', 'case1'], [])
    """

    cases: list[CaseFiles] = field(default_factory=list)
    root: Path = Path()
    manifest: Path | None = None
    unclaimed: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    guessed: list[str] = field(default_factory=list)
    unowned: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    undecided: set[str] = field(default_factory=set)
    unpaired: str = ""
    ignored: str = ""
    without_scan: list[str] = field(default_factory=list)

    def note(self, sentences: list[str], names: Collection[str], what: str) -> None:
        """Add to one of the lists a sentence on names, if any."""
        if names:
            quoted = quote_some(sorted({*names}))
            several = f"{len(names)} {what} ({quoted})"
            sentences.append(several if len(names) > 1 else f"{what}: {quoted}")


def cases_of(
    rows: Sequence[Row],
    exclusion: Exclusion,
    runs: Literal["", "first"],
    found: CohortFiles,
) -> list[CaseFiles]:
    """The cases of all rows that are not left out.

    runs: which of several files of a modality counts, noted in `found`; otherwise BadInput is raised for them.
    """
    by_case = grouped(
        ((row.split, row.patient and plain_name(row.patient), plain_name(row.case)), row)
        for row in rows
    )
    splits = Counter((owner, study) for _, owner, study in by_case)
    begin_anew = len(splits) < len(by_case)
    # Studies often have one name in every patient ('baseline'): then only patient and study together name a case.
    is_ambiguous = len({study for _, study in splits}) < len(splits)
    cases = []
    others = []
    asked = []
    for (split, owner, study), of_case in by_case.items():
        case = f"{owner}_{study}" if is_ambiguous and owner is not None else study
        case = f"{split}_{case}" if begin_anew and split else case
        if not exclusion.keep_case(case, owner):
            continue
        files = {}
        for name, of_name in grouped((plain_name(row.modality), row) for row in of_case).items():
            by_path = {row.path: row for row in of_name}  # a row may be repeated
            if len(by_path) > 1 and not runs:
                (first, one), *again = by_path.items()
                raise BadInput(
                    f"{first}: expected one {one.modality} of case {case}, found also {first_of([row.series or path for path, row in again])}. Name one in a table (--manifest), skip the others or narrow the series' tags in a preset file (--preset, keys skip and series), or leave the case out (--exclude {case}). Of sessions in folders of their own: --pattern '**/{{patient}}/{{case}}/{{modality}}'."
                )
            files[name], *further = sorted(by_path, key=str)
            others += [path.name for path in further]
        if split and not owner and splits[owner, study] > 1:
            asked.append(case)
        fold = of_case[0].fold
        for folder in of_case[0].path.parent.parts:
            if of_case[0].fold is None and (match := FOLD.fullmatch(folder)):
                fold = int(match[1])
        cases.append(_case(case, owner or "", split, files, fold))
    what = "files not read, as of several of a modality the first by name counts unless a manifest names them"
    found.note(found.guessed, others, what)
    found.undecided |= {*asked}
    found.note(
        found.questions,
        asked,
        "cases of one name in the folders of several splits, which may be of one patient",
    )
    return _with_images(cases, found)


def plain_name(text: str) -> str:
    """A text as the name of a case, with '_' for what not every system allows in a file's name."""
    return re.sub(r"[^\w.-]+", "_", text).strip(".") or "case"


def _case(
    case: str, patient: str, split: str | None, paths: Mapping[str, Path], fold: int | None
) -> CaseFiles:
    """A case from all its files: images, the mask and label maps go by their names."""
    for name in (case, *paths):
        safe_name(name, f"case {case}")
    order = [name for name in (*MASKS, *LABELS) if name in paths]
    kinds = grouped((kind_of(name), name) for name in dict.fromkeys([*order, *sorted(paths)]))
    images, masks, labels = (
        {name: paths[name] for name in kinds.get(kind, ())} for kind in ("image", "mask", "labels")
    )
    return CaseFiles(case, patient, split, images, next(iter(masks.values()), None), labels, fold)


def kind_of(name: str) -> Literal["image", "mask", "labels"]:
    """Whether a file is an image, the mask of a body or a label map, by its name.

    A mask is that of a body where its further words name a body or a modality; lesion_mask and infarct_core are label maps.
    """
    words = re.findall(r"[a-z][a-z\d]*", _without_accents(name))
    masks = [mask for word in words if (mask := MASK.fullmatch(word))]
    rest = {*words, *(mask["of"] for mask in masks)} - {"", *(mask[0] for mask in masks)}
    if any(map(SEGMENTATION.fullmatch, rest)) or (rest and all(map(PART.fullmatch, rest))):
        return "labels"
    if not masks:
        return "image"
    return "mask" if rest <= KNOWN | {*BODY.split()} else "labels"


def kind_by_values(path: Path) -> Literal["ct", "seg", "target"]:
    """Whether a file is a CT, a label map, or another image by its values."""
    try:
        values = read_volume(path).data
    except (ValueError, OSError):  # prepare says what is wrong with it
        return "seg"
    least = values.min()
    if least < CT_REACHES_HU:
        return "ct"
    whole = least >= 0 and values.max() < MOST_LABELS and (values == values.round()).all()
    return "seg" if whole else "target"


def _with_images(cases: Sequence[CaseFiles], found: CohortFiles) -> list[CaseFiles]:
    """The cases, with scans in place of files called as label maps whose first is an image by its values, which is noted."""
    firsts = {
        name: case.labels[name] for case in cases[::-1] for name in LABELS if name in case.labels
    }
    named = {name for case in cases for name in case.files}
    images = dict[str, str]()
    for name, path in firsts.items():
        kind = kind_by_values(path)
        if kind != "seg":
            images[name] = name if kind in named else kind
            named.add(images[name])
            found.guessed.append(f"{name} is {images[name]}, and no label map, by its values")
    taken = []
    for case in cases:
        labels = {name: path for name, path in case.labels.items() if name not in images}
        files = {images[name]: path for name, path in case.labels.items() if name in images}
        taken.append(replace(case, files=case.files | files, labels=labels))
    return taken


def is_of_mask(word: str) -> bool:
    """Whether a word before that of a mask states of what it is: of a body, or of a part of one."""
    plain = _without_accents(word)
    return bool(plain in BODY.split() or SEGMENTATION.fullmatch(plain) or PART.fullmatch(plain))


def _without_accents(name: str) -> str:
    """A name in small letters without accents, however these are stored."""
    return unicodedata.normalize("NFKD", name.lower()).encode("ascii", "ignore").decode()


def is_known(name: str) -> bool:
    """Whether a name is that of a known modality, mask or label map, or begins with one ('cta2', 't1_gd')."""
    lower = _without_accents(name)
    first = re.split("[-_+]", lower)[0]
    is_drawn = SEGMENTATION.fullmatch(first) or kind_of(name) == "mask"
    return bool(is_drawn or {lower, first} & KNOWN or re.split("[^a-z]", lower)[0] in UNITS)
