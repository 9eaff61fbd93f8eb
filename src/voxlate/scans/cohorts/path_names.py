"""What the folders and the name of a scan state where no pattern does: split, patient, case and modality.

Whose patient it is, a word before a number or a public identifier states; see owners.py for the rest.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from voxlate.base.errors import BadInput
from voxlate.scans.cohorts.case_files import KNOWN, is_known, is_of_mask, kind_of
from voxlate.scans.formats.dicom import SeriesInfo
from voxlate.scans.formats.io import location_of, without_ending
from voxlate.scans.images.units import COUNTS, UNITS, plain_modality

# Patients by the conventions of BIDS, TCGA, BraTS 2023, ADNI, OASIS 1 and 3, IXI, SynthRAD, HECKTOR, and CPTAC.
PUBLIC = re.compile(
    r"sub-[A-Za-z0-9]+(?=_|$)|TCGA-\w\w-\w{4}(?!\w)|BraTS-[A-Za-z]+-\d+(?=-|$)|BraTS\d+_(?:\w+_)?\d+(?:_\d)?$"
    r"|(?:ADNI_)?\d{3}_S_\d{4}(?!\d)|OAS\d_?\d{4,5}|IXI\d{3}(?=-|$)|[12](?:[BP]|HN|TH|AB)[A-E]\d{3}$|HN-[A-Z]{3,4}-\d{3}(?!\d)|C3[LN]-\d{5}(?!\d)"
)
# A word before the number of a patient.
PERSON = re.compile(
    r"(?:patient|pat|pt|p|subject|subj|sub|case|id|participant|volunteer|person|control|head|brain|phantom)(?:id)?[-_ ]?\d+",
    re.IGNORECASE,
)
DATE = r"\d{4}([-_.]?)[01]\d\1[0-3]\d(?!\d)|[0-3]?\d[.][01]?\d[.](?:\d\d)?\d\d(?!\d)"
WORDS = {
    "train": r"tr(?:ain(?:ing)?|n)?|development",
    "val": r"val(?:id(?:ation|ierung)?)?|va|vl|dev|tun(?:e|ing)",
    "test": r"test(?:ing)?|te|tst?|h[eo]ld[-_ ]?out",
}
SHORT = ("tr", "trn", "va", "vl", "dev", "te", "ts", "tst")  # which have other meanings, too
SPLIT_WORD = rf"(?P<split>(?i:{'|'.join(WORDS.values())}))"
# Of 'training_set', 'BraTS2020_ValidationData', '01_train', 'test_v2', CycleGAN's 'trainA' and nnU-Net's 'imagesTs'.
SPLIT_FOLDER = re.compile(
    rf"(?:(?P<group>.*)[-_ ])?(?P<files>(?i:images|labels)?){SPLIT_WORD}[-_ ]?"
    r"(?:(?i:data|set|images|cases|input)|(?P<side>[A-Za-z]\w*?))??(?:[-_ ]?v?\d{1,2})?"
)
SILENT = {"anat", "images", "image", "scans", "volumes"}  # folders that state nothing
NUMBERED = re.compile(r"(.*?[A-Za-z]\d?)[-_. (]*(\d+)\)?((?:[-_]\D+)?)")  # ct10, ct_1, ct10_reg
MOST_NUMBERED = 5  # modalities in a case: cta1 and cta2 beside ctp1 and ctp2 are modalities
NUMBERED_SERIES = re.compile(r"\d+\.\d+-")  # folders as TCIA's downloader writes them


def is_person(name: str) -> bool:
    """Whether a name is that of a patient by a word for patients, or by a public convention."""
    return bool(PERSON.fullmatch(name) or PUBLIC.match(name))


def patient_of(name: str) -> str:
    """The public identifier at the start of a name, or the name."""
    match = PUBLIC.match(name)
    return match[0] if match else name


def split_named(word: str) -> str:
    """The split that a word means; "" for any other word."""
    return next((name for name, words in WORDS.items() if re.fullmatch(words, word.lower())), "")


def splits_in(text: str) -> set[str]:
    """The splits that the words of a name or a text mean, also those within isTest and train_ids."""
    return {*map(split_named, re.findall("[A-Z]?[a-z]+|[A-Z]+", text))} - {""}


def split_in(name: str) -> str:
    """The split that one of the words of a name states; "" for none, or several."""
    splits = splits_in(name)
    return splits.pop() if len(splits) == 1 else ""


def split_folders(paths: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The split that each folder above some paths states, and its modality or the side of CycleGAN's folders ("").

    Short words such as 'te' count where folders state several splits.
    """
    stated = {}
    short = set()
    for folder in {folder for path in paths for folder in PurePosixPath(path).parents}:
        match = SPLIT_FOLDER.fullmatch(folder.name)
        if match is None or any(map(is_person, folder.parent.parts)):  # test and retest of p1
            continue
        group, side = match["group"] or "", match["side"] or ""
        modality = group if is_known(group) and not re.search(r"\d\d", group) else side
        if is_known(modality) or (side in ("", "A", "B") and not is_person(group)):
            stated[str(folder)] = split_named(match["split"]), modality.lower()
            if match["split"].lower() in SHORT and not match["files"]:
                short.add(str(folder))
    if len({split for split, _ in stated.values()}) > 1:
        return stated
    return {folder: split for folder, split in stated.items() if folder not in short}


def split_of_path(path: str, splits: Mapping[str, tuple[str, str]]) -> str | None:
    """The split that the outermost folder of a path states; None where none does. splits: of folders, see split_folders."""
    folders = [str(folder) for folder in PurePosixPath(path).parents]
    return next((splits[folder][0] for folder in reversed(folders) if folder in splits), None)


def split_of_name(case: str) -> str | None:
    """The split that the first or the last word of a case's name means; None for other names."""
    first, *others = re.split("[-_ ]", case)
    words = (word for word in (first, *others[-1:]) if word.lower() not in SHORT)
    return next(filter(None, map(split_named, words)), None)


@dataclass(frozen=True)
class Names:
    """What a path states; ids: names of groups, the patient and studies, from the outermost; modality: "" if unstated.

    is_guess: whether the modality is any name of a file. series, person: of DICOM, whose tags state the modality, and a hash of the person.
    """

    path: str
    split: str | None
    ids: tuple[str, ...]
    modality: str
    is_dicom: bool = False
    is_guess: bool = False
    series: SeriesInfo | None = None
    person: str = ""

    @property
    def first(self) -> int:
        """The place of the patient among the ids, where a word or a public identifier states one; else 0."""
        return next((place for place, name in enumerate(self.ids) if is_person(name)), 0)


def read_names(
    path: str, is_dicom: bool = False, splits: Mapping[str, tuple[str, str]] | None = None
) -> Names:
    """What a path states. splits: of folders, see split_folders."""
    *folders, stem = without_ending(path).split("/")
    split, side = None, ""
    names = list[str]()
    for depth, folder in enumerate(folders, start=1):
        stated = (splits or {}).get("/".join(folders[:depth]))
        if stated is None:
            names.append(folder)
        else:
            split, side = stated[0], stated[1] or side
    others = [name for name in names if not _is_of_modality(name)]
    rest = stem
    for folder in others:
        rest = re.sub(rf"^{re.escape(folder)}[-_]+", "", rest)
    own, modality = _cut(rest, in_folder=bool(names))
    if side:
        own, modality = own if modality.lower() == side else rest, side
    if not modality:
        of_modality = [name for name in names if name not in others and name.lower() not in SILENT]
        modality = of_modality[-1] if of_modality else ""
    if others or (own and modality):
        names = others
    is_guess = bool(names) and not modality and not is_dicom and not re.fullmatch(r"\d+", own)
    is_whole = any(map(is_person, names)) and not re.search(r"\d", own) and rest.endswith(modality)
    # the default layout: CASE/ANY_NAME, and in a patient's folder 'Tumor T1'
    if is_guess or is_whole:
        own, modality = "", rest if own or is_guess else modality
    if is_dicom and NUMBERED_SERIES.match(stem):
        own, modality = "", ""  # which the tags state
    if own:
        own = f"{stem[: len(stem) - len(rest)]}{own}"  # pat01/pat01_tp2_t1
    ids = [*names, own] if own and own not in names else names
    plain = tuple(name.replace(" ", "_") for name in ids)
    return Names(path, split, plain, modality.replace(" ", "_"), is_dicom, is_guess)


def refuse_numbers(root: Path, every: Sequence[Names]) -> None:
    """Raise BadInput where many modalities have numbers, as 'ct10' and 'mr10': they may be those of cases."""
    matches = [(names.path, NUMBERED.fullmatch(names.modality)) for names in every]
    numbered = {match[0]: path for path, match in matches if match and is_known(match[1])}
    if len(numbered) > MOST_NUMBERED:
        path = next(iter(numbered.values()))
        stem = without_ending(path.rpartition("/")[2])
        form = NUMBERED.sub(_form_of, stem, count=1)
        raise BadInput(
            f"{root}: expected names of cases beside those of modalities, found numbered modalities, such as '{path}'. Pass --pattern '**/{form}' if these number the cases, or '**/{{case}}/{{modality}}' if they are of one case."
        )


def _form_of(found: re.Match[str]) -> str:
    """A name as a pattern, as '{modality} ({case})' of 'CT (1)'."""
    between = found.string[found.end(1) : found.start(2)]
    after = found.string[found.end(2) : found.end()]
    return f"{{modality}}{between}{{case}}{after}"


def _is_of_modality(folder: str) -> bool:
    """Whether a folder holds scans of one modality, as MR does; MR_d0129 is a study, and MR_p1 that of a patient."""
    if folder.lower() in SILENT | KNOWN:
        return True
    return (
        is_known(folder)
        and not re.search(r"\d\d", folder)
        and not is_person(folder.partition("_")[2])
    )


def _cut(stem: str, in_folder: bool) -> tuple[str, str]:
    """What a file's name states of its case, and of its modality, at its end or else its start; "" for nothing."""
    own = r"\d\d(?!\d*[A-Za-z]{2})" if in_folder else r"\d"
    number = rf"(?i)[-_](?:{own}|(?:slice|p)\w*[-_]?\d)"
    pieces = re.split("([-_])", stem)
    for start in range(len(pieces) - 1, -1, -2):
        name = "".join(pieces[start:])
        if is_known(name) and not re.search(number, name):
            end = start
            is_mask = kind_of(name) == "mask"
            while end and is_mask and is_of_mask(pieces[end - 2]):  # p1_lesion_mask
                end -= 2
            name = "".join(pieces[end:]) if is_mask else name
            while end and pieces[end - 2].lower() in KNOWN:  # p1_t2_flair, p1_ct_mask
                end -= 2
            return "".join(pieces[: max(end - 1, 0)]), name
    for place in range(0, len(pieces) - 1, 2):
        if is_known(pieces[place]):
            return "".join(pieces[:place] + pieces[place + 2 :]), pieces[place]
    return stem, ""


def modality_by_name(path: Path) -> str:
    """The modality that the name of a scan states, read as in a cohort; "" for none."""
    names = read_names(location_of(path).name)
    return stated_modality(names.modality or "_".join(names.ids))


def stated_modality(name: str) -> str:
    """The modality that a name of scans states beside words that say nothing of the image's kind; "" for none, or several.

    t1_gewichtet is t1; t1_seg and synth_ct are none.
    """
    plain = plain_modality(name.lower())
    words = {*re.split("[-_]", plain)}
    stated = words & KNOWN
    if plain in KNOWN:
        return plain
    if len(stated) > 1:
        stated -= {"mr"}
    if len(stated) != 1 or any(map(COUNTS.fullmatch, words - UNITS.keys())):
        return ""
    return stated.pop()


def scans_named(names: Collection[str], modalities: Sequence[str]) -> list[str]:
    """The names of a cohort's scans that state one of these modalities, in their order; names with further words where no other does."""
    for read in (plain_modality, stated_modality):
        stated = {name: name if name in modalities else read(name) for name in names}
        found = [name for name in names if stated[name] in modalities]
        if found:
            return sorted(found, key=lambda name: modalities.index(stated[name]))
    return []
