"""The patients in the names of cases: 'pat07_tp1' and 'pat07_tp2' are two sessions of pat07.

A name is read as a patient and a part: a session, time point, slice, run, side, date or copy. A part counts only where
the rest of the name identifies a patient, and where several cases share that rest.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from voxlate.base.errors import first_of, plural
from voxlate.base.groups import grouped
from voxlate.scans.cohorts.case_files import CaseFiles, CohortFiles
from voxlate.scans.formats.io import is_picture

EACH = "each"  # in place of a file of patients
ANY_CASE = re.IGNORECASE
SEPARATOR = "[-_. ]"
END = rf"(?={SEPARATOR}|$)"

# Words before the number of a patient.
PERSON = (
    "(?:patientid|patient|patid|pat|pt|p|subjectid|subject|subj|sub|case|id|participant|volunteer"
    "|person|control|head|brain|phantom|training|train|mouse|rat|dog)"
)
# Numbers by which nobody is identified: of a group of patients, a year, a date, a field strength.
DATE = (
    r"(?:(?:19|20)\d\d[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12]\d|3[01])|[0-3]?\d[-_.][01]?\d[-_.](?:19|20)\d\d|(?<!\d[.])[0-3]?\d[.][01]?\d[.]\d\d"
    r"|(?:jan|feb|m[aä]r|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz])[a-z]*[-_]?(?:19|20)\d\d)(?!\d)"
)
GROUPS = "sites?|cent(?:er|re)|hospital|group|cohort|batch|fold|study|dataset|data|set|scanner|task|arm|exp|part"
OF_NOBODY = re.compile(
    rf"(?:{GROUPS})[-_]?\d+"
    rf"|{DATE}|(?<=[a-z])(?:19|20)\d\d(?!\d)|^(?:19|20)\d\d$|\d+(?:[.]\d)?m?t(?![a-z])",
    ANY_CASE,
)
# Prefixes that are whole patients in the conventions of BIDS, ADNI, TCGA, BraTS 2023 and UK Biobank.
WHOLE_NAME = re.compile(
    r"sub-[A-Za-z0-9]+(?=_|$)|(?:ADNI_)?\d{3}_S_\d{4}(?!\d)|TCGA-\w\w-\w{4}(?!\w)|BraTS-[A-Za-z]+-\d+(?=-)|\d{7}(?=_\d{5}_\d_\d)"
)
# The words that are parts, by what they state.
MODALITIES = "mri?|c?mrt|cta?|pet|t[12]w?(?:gd|ce|c|k)?|flair"
VISITS = (
    "session|sess|ses|visit|vis|timepoint|time|tp|day|week|month|followup|fu"
    "|besuch|visite|termin|zeitpunkt|untersuchung|nachuntersuchung|nachsorge|kontrolle|verlaufskontrolle|verlauf|aufnahme|tag|woche|monat|jahr"
)
TIMES = f"{VISITS}|scan|run|slice|slc|sl|repeat|rep|image|img"
PLANES = "axial|ax|tra|coronal|cor|sagittal|sag"
PIECES = "patch|crop|tile|block|slab|layer|section|sect|sec"
OTHERS = f"{PLANES}|{PIECES}|study|exam|series|acq|recon|rec|echo|days|weeks|wk|months|mon|year|yr|fup|baseline|bl|frame|phase|dir|fraction|fract|frac|fx|im|vol|wave|cycle|course|plan|cbct|kernel"
OCCASIONS = (
    r"baseline[^\W_]*|bl|followup|follow-up|fu|(?:pre|post|intra|mid|peri|re-?|during|before|after)-?(?:op|rt|crt|tx|plan|sim|contrast|gd|gad|dose|surg|surgery|chemo|therapy|treatment|treat|radiotherapy|radiation|ablation|resection|biopsy|scan|planning)?"
    "|(?:erst|vor|nach|zwischen|abschluss|folge|basis|kontroll|verlaufs)?-?(?:untersuchung|aufnahme|kontrolle|termin|besuch|messung|visite)"
    "|erst|verlauf|nachsorge|entlassung|vor|nach|vorher|nachher|test|retest|rescan|admission|discharge|acute|subacute|chronic|first|second|third|last|early|late|initial|final"
    "|primary|recurrence|recurrent|progression|relapse|remission|plan|planning|boost|(?:plan|planning|sim|repeat|diagnostic)-?(?:ct|mr|mri)"
)
CONTRASTS = "(?:non?|un|without|with)?-?(?:contrast|enhanced|gd|gado?|ce)|nce|nc|native?|plain|arterial|portal|portalvenous|venous|hepatobiliary|nephrographic|excretory|delayed?|equilibrium|art|ven|del|pv"
POSITIONS = (
    r"supine|prone|erect|standing|sitting|upright|decubitus|insp\w*|exp|expir\w*|inhal\w*|exhal\w*|ebh|dibh|bh|fb|breathhold|freebreathing"
    "|rest|stress|systole|diastole|es|ed|flexion|extension|neutral"
)
RESOLUTIONS = (
    r"\d+(?:[.p]\d+)?(?:x\d+(?:[.p]\d+)?)*-?(?:mm|um|iso|kvp?|kev)|kvp?-?\d+|x[2-9]|iso|isotropic|aniso\w*|thin|thick|hr|lr|sr|hires|lores|ld|fd|nd"
    "|(?:low|lo|high|hi|full|half|quarter|normal|super|ultra|ultralow)-?(?:res|resolution|dose)|2d|3d"
)
SCANNERS = (
    r"siemens|philips|ge|toshiba|canon|hitachi|uih|hyperfine|skyra|prisma|verio|trio|avanto|aera|vida|sola|terra|magnetom|achieva|ingenia|discovery"
    r"|signa|optima|aquilion|somatom|scanner-?[a-z]?|\d+(?:[.]\d+)?m?(?:t|tesla)|soft|sharp|smooth|bone|lung|stnd|[bhiqu][frv]?\d\d[a-z]"
)
COPIES = (
    "copy|copie|copia|kopie|dup|bak|backup|orig|original|raw|defaced|anon|aug|augmented|flip|flipped|mirror|mirrored|rot|rotated|noise|noisy|blur|blurred"
    "|elastic|warped|n4|bfc|reg|registered|coreg|resampled|res|norm|normalized|normalised|brain|bet|stripped|cropped|denoised|corrected"
)
REGIONS = "left|right|l|r|lh|rh|upper|lower|top|bottom|kopf|schädel|hirn|head|neck|chest|thorax|abdomen|pelvis"
ALONE = rf"{OCCASIONS}|{CONTRASTS}|{POSITIONS}|{RESOLUTIONS}|{SCANNERS}|{REGIONS}|{PLANES}|(?:{COPIES}){SEPARATOR}?\d*"
COUNTED = r"\d+(?:st|nd|rd|th|h|hrs?|d|days?|w|wk|weeks?|m|mo|months?|y|yr|years?)"  # 24h, 2nd
PART = re.compile(
    rf"{SEPARATOR}+(?:(?P<time>(?:{VISITS}){SEPARATOR}?(?!{DATE})\d+[a-z]?|\d[.]{SEPARATOR}?(?:{VISITS})|{OCCASIONS}"
    rf"|{DATE}(?:[-_t]?\d\d[-_.]?\d\d(?:[-_.]?\d\d)?)?)"
    rf"|(?:ses|acq|run|rec|ce|dir|echo|part|space|desc|task)-[a-z0-9]+"
    rf"|(?:{TIMES}|{OTHERS}){SEPARATOR}?\d+[a-z]?|(?:mri?|ct|pet|c\d+d|[stvdmwyzf])\d+[a-z]?"
    rf"|{ALONE}|[a-f]|{MODALITIES}|{COUNTED}){END}"
    rf"|{SEPARATOR}*\(\d+\){END}"
    rf"|(?<=\d)(?:{TIMES}){SEPARATOR}?\d+{END}"
    rf"|(?<=\d\d)(?:[a-e]|(?=[a-z]{{3}})(?:{ALONE}))$",
    ANY_CASE,
)
PARTS = re.compile(rf"(?:{PART.pattern})+", ANY_CASE)  # _MRI_11.01.2021
# Of Meier_Anna_20190101 and Meier-baseline. UKE_MR_20190101 and brain_scan_20190101 may be anybody's.
ORGANS = "neck|chest|lungs?|thorax|abdomen|liver|pelvis|prostate|spine|knee|hip|heart"
PLACES = "hospital|clinic|klinikum|cent(?:er|re)|university|site|siemens|philips|ge|toshiba|canon"
NO_NAME = rf"(?:{MODALITIES}|{ORGANS}|{PLACES}|{PERSON}|{TIMES}|{OTHERS}|{ALONE}){END}"
FULL_NAME = re.compile(
    rf"((?!{NO_NAME})[^\W\d_]{{2,}}(?:{SEPARATOR}+(?!{NO_NAME})[^\W\d_]+)*)(?:{SEPARATOR}+(?:{OCCASIONS}))*",
    ANY_CASE,
)
# Of case21s004. Elsewhere a letter has another meaning: r001s002 is subject 2 of region 1 in ATLAS.
LETTERED = re.compile(rf"((?:^|.*{SEPARATOR}){PERSON}[-_]?\d+)[stvd]\d+", ANY_CASE)
# Any words behind the number of a patient; 01_anna and 2019_anna may be of a place and a year.
WORDED = re.compile(
    rf"((?:.*{SEPARATOR})?(?:{PERSON}[-_]?\d+|[^\W_]*(?:\d{{3}}|[a-z]\d\d)))(?<!{SEPARATOR}(?:19|20)\d\d)(?<!^(?:19|20)\d\d)(?:{SEPARATOR}+[a-z]+)+",
    ANY_CASE,
)
LEADING = re.compile(
    rf"(?:(?:{MODALITIES}){SEPARATOR})?(?:(?:{TIMES}){SEPARATOR}?\d+|train|val|{ALONE}|{DATE}){SEPARATOR}(?=(?:sub-|{PERSON}[-_]?\d))|{DATE}{SEPARATOR}+(?={FULL_NAME.pattern}$)",
    ANY_CASE,
)
BARE = re.compile(rf"(.+)({SEPARATOR})(\d+)")  # case21_004
YEAR = re.compile(r"(?:19|20)\d\d")
LONGEST_SITE = 3  # digits: 01_001 is a patient of site 01, 10001_1000001 a study of patient 10001
NUMBERED_PERSON = re.compile(rf"(?:^|.*{SEPARATOR}){PERSON}[-_]?\d+", ANY_CASE)
UNOWNED = re.compile(
    rf"(?:.*{SEPARATOR})?{DATE}|(?:\D*{SEPARATOR})?(?:session|sess|ses|visit|timepoint|tp|slice|slc|frame|run){SEPARATOR}?\d+",
    ANY_CASE,
)
# Of anna_s005, anna_schicht_5 and anna_005, which are slices where they are pictures; siteA_001 is not of one patient.
SLICE = re.compile(
    rf"(?!(?:{GROUPS})[a-z]?{SEPARATOR})(?P<patient>.+?){SEPARATOR}+(?P<word>(?:s|sl|slc|slice|schicht|images?|img|im|z){SEPARATOR}?)?(?P<number>\d+)",
    ANY_CASE,
)
NUMBERED = re.compile(rf"(?:[a-z]+{SEPARATOR}?)?\d+", ANY_CASE)  # pictures called 0001 or img_001


def patient_in(name: str) -> str | None:
    """The patient in a name that states a part, too; None where the name is not read so."""
    whole = WHOLE_NAME.match(name)
    if whole:
        return whole.group()
    for part in PART.finditer(name):
        patient, rest = name[: part.start()], PART.sub("", name[part.end() :])
        others = re.search(rf"{PERSON}[-_]?\d", rest, ANY_CASE)
        numbered = re.search(r"\d", rest) and not NUMBERED_PERSON.fullmatch(patient)
        named = part["time"] and FULL_NAME.fullmatch(patient)
        if (named or identifies(patient)) and not others and not numbered:
            return named[1] if named else patient
    short = LETTERED.fullmatch(name) or WORDED.fullmatch(name)
    if short and identifies(short[1]):
        return short[1]
    leading = LEADING.match(name)
    if leading:
        rest = name[leading.end() :]
        return patient_in(rest) or rest
    return _before_bare_number(name)


def _before_bare_number(name: str) -> str | None:
    """The patient in 'case21_004', 'Pat01.1', '00012_11' and '00012-003'.

    TCGA-02-0001, C3L-00016, site1_001, 01_001 and 2019_001 are patients: their first number is that of a place or year.
    """
    split = BARE.fullmatch(name)
    if split is None or not identifies(split[1]):
        return None
    patient, mark, number = split.groups()
    if NUMBERED_PERSON.fullmatch(patient):
        return patient
    before = re.split(SEPARATOR, patient)[-1]
    if not before.isdigit() or YEAR.fullmatch(before) or mark not in "-_":
        return None
    longer = len(before) >= len(number) + (mark == "-")
    whole = mark == "_" and patient.isdigit() and len(patient) > LONGEST_SITE
    return patient if longer or whole else None


def _patients_of_slices(names: Sequence[str]) -> dict[str, str]:
    """The patients in the names of slices, such as anna in anna_s005 and anna_005.

    Numbers without a word have equal digits, and are not behind digits or capitals, as 01_001 and HN-CHUM-001 of sites.
    """
    read = [slice for name in names if (slice := SLICE.fullmatch(name))]
    groups = grouped(((one["patient"], one["word"] or len(one["number"])), one) for one in read)
    lengths = Counter(patient for patient, mark in groups if isinstance(mark, int))
    return {
        one.string: one["patient"]
        for (patient, _), group in groups.items()
        for one in group
        if (one["word"] or (lengths[patient] == 1 and patient != patient.upper()))
        and (identifies(patient) or FULL_NAME.fullmatch(patient))
    }


def _is_number(name: str) -> bool:
    """Whether a name is a number that no word calls a patient's."""
    return bool(NUMBERED.fullmatch(name)) and not is_person(name)


def is_person(name: str) -> bool:
    """Whether a name is that of a patient by a word for patients, or by the conventions of a public data set."""
    return bool(NUMBERED_PERSON.fullmatch(name) or WHOLE_NAME.match(name))


def identifies(patient: str) -> bool:
    """Whether a text holds a number that may be a patient's."""
    if NUMBERED_PERSON.fullmatch(patient):
        return True
    return re.search(r"\d", OF_NOBODY.sub("", patient)) is not None


def _plain(patient: str) -> str:
    """A patient's name without what its spellings differ by: Pat_007 and pat7."""
    bare = re.sub(r"(?<!\d)0+(?=\d)", "", patient.lower())
    return re.sub(rf"(?<=[a-z]){SEPARATOR}+(?=\d)", "", bare)


def find_owners(cases: Sequence[CaseFiles], found: CohortFiles) -> list[CaseFiles]:
    """The cases, those without a patient with the one in their names or as patients of their own.

    What was read from names or remained separate is noted in `found`, and slices without a patient in `found.unowned`, too.
    """
    unowned = sorted(case.case for case in cases if not case.patient)
    pictures = all(is_picture(path) for case in cases for path in case.files.values())
    owners, sentence = group_by_patient(unowned, pictures)
    found.guessed += [sentence] if sentence else []
    found.unowned += [sentence] if sentence and pictures and not owners else []
    return [
        replace(case, patient=case.patient or owners.get(case.case, case.case)) for case in cases
    ]


def group_by_patient(names: Sequence[str], pictures: bool = False) -> tuple[dict[str, str], str]:
    """The patient of each name that shares one with another name, and a sentence on names that were read or kept separate.

    pictures: whether all are single slices, whose numbers then are not those of patients.
    """
    slices = _patients_of_slices(names) if pictures else {}
    patients = {name: patient_in(name) or slices.get(name, name) for name in names}
    groups = grouped((_plain(patient), name) for name, patient in patients.items())
    shared = {patients[group[0]]: group for group in groups.values() if len(group) > 1}
    alone = "so that each counts as a patient; --patients FILE states whose they are"
    parts = [
        name
        for name in names
        if patients[name] == name and (UNOWNED.fullmatch(name) or (pictures and _is_number(name)))
    ]
    unread = ""
    if len(parts) > 1:
        unread = f"the names of {len(parts)} cases state a date, session, slice or number and no patient ({first_of(parts, 3)}), {alone}"
    if shared:
        patient, group = next(iter(shared.items()))
        if len(groups) == 1:
            return {}, (
                f"the names of all {len(names)} cases would be those of one patient, {patient} ({first_of(names, 3)}), {alone}"
            )
        owners = {name: owner for owner, own in shared.items() for name in own}
        return owners, (
            f"{len(owners)} of {len(names)} cases are sessions, slices or copies of {plural(len(shared), 'patient')} by their names ({first_of(group, 3)} are of {patient}); --patients {EACH} makes every case a patient of its own{unread and '; '}{unread}"
        )
    return {}, unread
