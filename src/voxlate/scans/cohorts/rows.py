"""The rows of a cohort's manifest, one a file, and the cases that --exclude leaves out."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from voxlate.base.errors import BadInput, as_list, did_you_mean, first_of
from voxlate.scans.formats.dicom import SeriesInfo

MOST_QUOTED = 3  # names or paths in a message


@dataclass(frozen=True)
class Row:
    """A file of a cohort: what its path, its table or its tags state.

    patient, split, fold: None where nothing states them; series: the DICOM series.
    """

    patient: str | None
    case: str
    modality: str
    path: Path
    series: SeriesInfo | None = None
    split: str | None = None
    fold: int | None = None


@dataclass
class Exclusion:
    """The option --exclude, as patterns with * and ? of cases or patients to leave out, and the record of its effects."""

    patterns: Sequence[str] = ()
    known: set[str] = field(default_factory=set)  # names of all cases and patients
    used: set[str] = field(default_factory=set)  # patterns that had an effect
    left_out: set[str] = field(default_factory=set)  # cases

    def keep_case(self, case: str, patient: str | None) -> bool:
        """Whether a case counts."""
        names = {case, patient or case}
        self.known |= names
        pairs = product(names, self.patterns)
        fitting = {pattern for name, pattern in pairs if fnmatch.fnmatchcase(name, pattern)}
        self.used |= fitting
        if fitting:
            self.left_out.add(case)
        return not fitting

    def sentences(self) -> list[str]:
        """A sentence on the cases that were left out, if any were."""
        if not self.left_out:
            return []
        named = quote_some(sorted(self.left_out))
        return [f"{len(self.left_out)} cases that --exclude names ({named})"]

    def refuse_unused(self, root: Path) -> None:
        """Raise BadInput for a pattern that has no effect: it may be a typing error."""
        unused = [pattern for pattern in self.patterns if pattern not in self.used]
        if unused:
            near = did_you_mean(unused[0], self.known)
            raise BadInput(
                f"--exclude: expected the name of a case or patient in {root}, or a pattern such as 'site2_*', found '{unused[0]}', which fits none. {near or 'Change it, or drop the option.'}"
            )


def quote_some(names: Sequence[str]) -> str:
    """The first of many names or paths in quotes, for a sentence."""
    return first_of([f"'{name}'" for name in names], MOST_QUOTED)


def as_names(names: Sequence[str] | str | None) -> tuple[str, ...]:
    """Names, of which some may stand in one text with commas between them."""
    words = ",".join(as_list(names or ())).split(",")
    return tuple(filter(None, map(str.strip, words)))


def several_files(rows: Sequence[Row]) -> BadInput:
    """The error of a case with several files of one modality."""
    first, *others = rows
    return BadInput(
        f"{first.path}: expected one {first.modality} of case {first.case}, found also {first_of([row.series or row.path for row in others])}. Name one in a table (--manifest), skip the others or narrow the series' tags in a preset file (--preset, keys skip and series), or leave the case out (--exclude {first.case}); if each is of a session in a folder of its own, pass --pattern '**/{{patient}}/{{case}}/{{modality}}'."
    )
