"""Path patterns with {patient}, {case} and {modality}, and the cases that files of such paths make."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from voxlate.cohorts.choice import Choice
from voxlate.cohorts.presets import CaseFiles, Preset, case_of, patient_of
from voxlate.system.errors import BadInput, first_of

ENTITY = re.compile(r"_(run|acq|rec)-[a-z0-9]+")  # of BIDS, in the name of a modality
MOST_PATHS = 3  # of the paths that have another form, in a message
Key = tuple[str | None, str]  # patient and study, as a path states them
Folders = list[tuple[Path, list[str]]]  # each with the names of its files
Candidates = Mapping[
    str, Sequence[tuple[Path, str]]
]  # of each modality: files, each with what describes it


def path_expression(pattern: str) -> re.Pattern[str]:
    """A path pattern as a regular expression; a name that comes twice must read the same twice, a modality in any case."""
    out, named = "", set()
    for part in re.split(r"(\{\w+\}|\*\*/|\*)", pattern):
        name = part[1:-1]
        if part in ("*", "**/"):
            out += "[^/]*" if part == "*" else "(?:.*/)?"
        elif part.startswith("{") and name not in ("patient", "case", "modality"):
            raise BadInput(
                f"pattern '{pattern}': expected {{patient}}, {{case}} or {{modality}}, found {part}. Use these names."
            )
        elif part.startswith("{"):
            again = f"(?i:(?P={name}))" if name == "modality" else f"(?P={name})"
            out += again if name in named else f"(?P<{name}>[^/]+)"
            named.add(name)
        else:
            out += re.escape(part)
    return re.compile(out)


def key_of(match: re.Match[str], root: Path) -> Key:
    """The patient and study in a path; root's name where there is none."""
    names = match.groupdict()
    return names.get("patient"), names.get("case") or names.get("patient") or root.resolve().name


def named_cases(
    found: Mapping[Key, Candidates],
    layout: Preset,
    choice: Choice,
    unclear: Callable[..., BadInput],
) -> list[CaseFiles]:
    """Cases from the files found for each patient and study.

    unclear: the error for several files of a modality of which none is chosen, given them, the modality and the case.
    """
    # Studies often have one name in every patient ('baseline'): then only patient and study together name a case.
    ambiguous = any(count > 1 for count in Counter(study for _, study in found).values())
    cases = []
    for (patient, study), of_case in found.items():
        case = f"{patient}_{study}" if ambiguous and patient is not None else study
        owner = patient_of(case, layout.patient) if patient is None else patient
        if not choice.has_case(case, owner):
            continue
        files = dict[str, Path]()
        for name, candidates in of_case.items():
            chosen = choice.one_of(candidates, name, case)
            if chosen is None:
                raise unclear(candidates, name, case)
            files[name] = chosen
        cases.append(case_of(case, owner, None, files))
    return cases


def with_runs(found: Mapping[Key, Candidates], choice: Choice) -> Mapping[Key, Candidates]:
    """The files found, where t1 and t1_run-2 are one modality if --prefer fits one of them and a case has both.

    Without --prefer they are two, since their voxels may differ in more than noise. Entities are those of BIDS.
    """
    merged = dict[str, str]()
    for of_case in found.values():
        groups: dict[str, list[str]] = defaultdict(list)
        for name in of_case:
            groups[ENTITY.sub("", name)].append(name)
        for plain, names in groups.items():
            files = [one for name in names for one in of_case[name]]
            if len(names) > 1 and any(
                choice.preferred(files, pattern) for pattern in choice.prefer
            ):
                merged |= dict.fromkeys(names, plain)
    joined: dict[Key, dict[str, list[tuple[Path, str]]]] = {}
    for key, of_case in found.items():
        joined[key] = defaultdict(list)
        for name, candidates in of_case.items():
            joined[key][merged.get(name, name)] += candidates
    return joined


def some_of(paths: Sequence[str]) -> str:
    return first_of([f"'{path}'" for path in paths], MOST_PATHS)
