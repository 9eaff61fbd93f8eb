"""The rows of a cohort's manifest, one a file, and the choice among them: --prefer, --exclude and --exclude-file."""

import fnmatch
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from voxlate.base.errors import BadInput, as_list, did_you_mean, first_of
from voxlate.base.groups import grouped
from voxlate.scans.formats.dicom import SeriesInfo

MOST_QUOTED = 3  # names or paths in a message


@dataclass(frozen=True)
class Row:
    """A file of a cohort: what its path, its table or its tags state.

    patient, split: None where nothing states them; series: the DICOM series, whose description counts in a choice.
    """

    patient: str | None
    case: str
    modality: str
    path: Path
    series: SeriesInfo | None = None
    split: str | None = None

    @property
    def description(self) -> str:
        """The description of a DICOM series."""
        return self.series.description if self.series else ""

    def fits(self, pattern: str) -> bool:
        """Whether a pattern fits the path or the description."""
        return _fits(self.path, pattern) or _fits(self.description, pattern)


@dataclass
class Choice:
    """The options --prefer, --exclude and --exclude-file, as patterns with * and ?, and the record of their effects.

    exclude: cases or patients to leave out; exclude_file: files to leave out; prefer: of several files of one modality
    in a case, the one to take. Patterns of files fit a file's name, or the end of its path from a folder on.
    """

    prefer: Sequence[str] = ()
    exclude: Sequence[str] = ()
    exclude_file: Sequence[str] = ()
    known: set[str] = field(default_factory=set)  # names of all cases and patients
    used: set[str] = field(default_factory=set)  # patterns that had an effect
    left_out: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    single: dict[str, Row] = field(
        default_factory=dict
    )  # by a pattern of prefer: a modality's only file
    has_several: bool = False  # whether any case has several files of one modality

    def keep_case(self, case: str, patient: str | None) -> bool:
        """Whether a case counts."""
        names = {case, patient or case}
        self.known |= names
        pairs = product(names, self.exclude)
        fitting = {pattern for name, pattern in pairs if fnmatch.fnmatchcase(name, pattern)}
        return self._keep(fitting, "cases that --exclude names", case)

    def keep_file(self, path: Path | str, description: str = "", name: str = "") -> bool:
        """Whether a file counts; name: of the file in a message."""
        pairs = product((path, description), self.exclude_file)
        fitting = {pattern for text, pattern in pairs if _fits(text, pattern)}
        return self._keep(fitting, "files that --exclude-file names", name or str(path))

    def _keep(self, fitting: set[str], what: str, name: str) -> bool:
        self.used |= fitting
        if fitting:
            self.left_out[what].add(name)
        return not fitting

    def choose(self, rows: Sequence[Row]) -> Row | None:
        """The row to take of several of one modality; None where the options do not decide.

        The first pattern of `prefer` that fits one of them alone decides.
        """
        every = product(rows, self.prefer)
        fitting = grouped((pattern, row) for row, pattern in every if row.fits(pattern))
        if len(rows) == 1:
            self.single |= dict.fromkeys(fitting, rows[0])
            return rows[0]
        self.has_several = True
        self.used |= fitting.keys()
        only = (fitting[pattern] for pattern in self.prefer if pattern in fitting)
        chosen = next((some[0] for some in only if len(some) == 1), None)
        if chosen is not None:
            others = {str(row.path) for row in rows if row != chosen}
            self.left_out["files in whose place --prefer took another"] |= others
        return chosen

    def sentences(self) -> list[str]:
        """Sentences on the cases and files that the options left out."""
        return [
            f"{len(names)} {what} ({quote_some(sorted(names))})"
            for what, names in sorted(self.left_out.items())
        ]

    def refuse_unused(self, root: Path) -> None:
        """Raise BadInput for a pattern that has no effect: it may be a typing error."""
        for pattern in self.prefer:
            if pattern not in self.used:
                raise self._error_of_preference(root, pattern)
        for option, what, patterns in (
            ("--exclude", "a case or patient", self.exclude),
            ("--exclude-file", "a file", self.exclude_file),
        ):
            unused = [pattern for pattern in patterns if pattern not in self.used]
            if unused:
                near = did_you_mean(unused[0], self.known) if option == "--exclude" else ""
                raise BadInput(
                    f"{option}: expected the name of {what} in {root}, or a pattern such as '*_run-2_*', found '{unused[0]}', which fits none. {near or 'Change it, or drop the option.'}"
                )

    def _error_of_preference(self, root: Path, pattern: str) -> BadInput:
        expected = f"--prefer: expected a pattern of one of several files of a modality in {root}, found '{pattern}'"
        row = self.single.get(pattern)
        if row is not None:
            return BadInput(
                f"{expected}, which fits {row.path.name}, the only {row.modality} of case {row.case}. Drop the option; if two names mean one modality, give a preset file (--preset) with [aliases], or name the files by run-, acq- or rec- (t1_run-2)."
            )
        none = "" if self.has_several else ", and no case has two files of one modality"
        return BadInput(f"{expected}, which fits none{none}. Change it, or drop the option.")


def quote_some(names: Sequence[str]) -> str:
    """The first of many names or paths in quotes, for a sentence."""
    return first_of([f"'{name}'" for name in names], MOST_QUOTED)


def as_names(names: Sequence[str] | str | None) -> tuple[str, ...]:
    """Names, of which some may stand in one text with commas between them."""
    words = ",".join(as_list(names or ())).split(",")
    return tuple(filter(None, map(str.strip, words)))


def several_files(rows: Sequence[Row]) -> BadInput:
    """The error of a case with several files of one modality of which none was chosen."""
    first, *others = rows
    names = [row.path.name for row in others]
    path = first.path
    choice = "/".join(path.parts[-2:]) if path.name in names else path.name
    if "#" not in choice:
        choice = choice.replace(first.case, "*")  # which fits other cases, too
    return BadInput(
        f"{path}: expected one {first.modality} of case {first.case}, found also {first_of([row.path for row in others])}. Choose one (--prefer '{choice}'), leave files out (--exclude-file PATTERN), or the case (--exclude {first.case}); if each is of a session in a folder of its own, pass --pattern '**/{{patient}}/{{case}}/{{modality}}'."
    )


def _fits(text: Path | str, pattern: str) -> bool:
    """Whether a pattern fits a text, or the end of a path from one of its folders on; an empty text fits none."""
    return bool(text) and fnmatch.fnmatchcase(f"/{Path(text).as_posix()}", f"*/{pattern}")
