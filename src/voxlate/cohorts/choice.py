"""The cases and files of a cohort that are left out, and the file that is taken of several of one modality."""

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from voxlate.system.errors import BadInput, did_you_mean, first_of


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
    used: set[tuple[str, str]] = field(default_factory=set)  # option and pattern
    cases: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    passed_over: set[str] = field(default_factory=set)
    alone: dict[str, str] = field(
        default_factory=dict
    )  # patterns of prefer that fit the only file of a modality, and that file
    doubled: bool = False  # whether any case had several files of one modality

    def has_case(self, case: str, patient: str | None) -> bool:
        """Whether a case counts."""
        names = {case, patient or case}
        self.known |= names
        fitting = [
            pattern
            for pattern in self.exclude
            if any(fnmatch.fnmatchcase(name, pattern) for name in names)
        ]
        self.used |= {("--exclude", pattern) for pattern in fitting}
        self.cases |= {case} if fitting else set()
        return not fitting

    def has_file(self, path: Path | str, root: Path | None = None, words: str = "") -> bool:
        """Whether a file counts; root: the folder from which a message names it; words: its description, if any."""
        fitting = [
            pattern
            for pattern in self.exclude_file
            if _fits(path, pattern) or _fits(words, pattern)
        ]
        self.used |= {("--exclude-file", pattern) for pattern in fitting}
        self.files |= {_shown(path, root)} if fitting else set()
        return not fitting

    def one_of(
        self,
        candidates: Sequence[tuple[Path, str]],
        modality: str,
        case: str,
    ) -> Path | None:
        """The file to take of several of one modality, each with its description; None where it is not clear.

        The first pattern of `prefer` that fits one of them alone decides.
        """
        fitting = {pattern: self.preferred(candidates, pattern) for pattern in self.prefer}
        if len(candidates) == 1:
            for pattern in (pattern for pattern, some in fitting.items() if some):
                self.alone.setdefault(
                    pattern, f"{candidates[0][0].name}, the only {modality} of case {case}"
                )
            return candidates[0][0]
        self.doubled = True
        self.used |= {("--prefer", pattern) for pattern, some in fitting.items() if some}
        for some in fitting.values():
            if len(some) == 1:
                self.passed_over |= {
                    _shown(path, None) for path, _ in candidates if path != some[0]
                }
                return some[0]
        return None

    def preferred(self, candidates: Sequence[tuple[Path, str]], pattern: str) -> list[Path]:
        """The files that a pattern of `prefer` fits, by their path or their description."""
        return [path for path, words in candidates if _fits(path, pattern) or _fits(words, pattern)]

    def sentences(self) -> list[str]:
        """Sentences on the cases and files that the options left out."""
        left_out = (
            (self.cases, "cases that --exclude names"),
            (self.files, "files that --exclude-file names"),
            (self.passed_over, "files in whose place --prefer took another"),
        )
        return [f"{len(names)} {what} ({_some(names)})" for names, what in left_out if names]

    def refuse_unused(self, root: Path) -> None:
        """Raise BadInput for a pattern that has no effect: it may be a typing error."""
        for pattern in self.prefer:
            if ("--prefer", pattern) not in self.used:
                raise self._decides_nothing(root, pattern)
        for option, patterns in (
            ("--exclude", self.exclude),
            ("--exclude-file", self.exclude_file),
        ):
            for pattern in patterns:
                if (option, pattern) in self.used:
                    continue
                what = "a case or patient" if option == "--exclude" else "a file"
                near = did_you_mean(pattern, self.known) if option == "--exclude" else ""
                raise BadInput(
                    f"{option}: expected the name of {what} in {root}, or a pattern such as '*_run-2_*', found '{pattern}', which fits none. {near or 'Change it, or drop the option.'}"
                )

    def _decides_nothing(self, root: Path, pattern: str) -> BadInput:
        expected = f"--prefer: expected a pattern of one of several files of a modality in {root}, found '{pattern}'"
        if pattern in self.alone:
            return BadInput(
                f"{expected}, which fits {self.alone[pattern]}. Drop the option; if two names mean one modality, give a preset file (--preset) with [aliases], or name the files by run-, acq- or rec- (t1_run-2)."
            )
        none = "" if self.doubled else ", and no case has two files of one modality"
        return BadInput(f"{expected}, which fits none{none}. Change it, or drop the option.")


def as_names(names: Sequence[str] | str | None) -> tuple[str, ...]:
    """Names of which a single one may be given as a text."""
    return (names,) if isinstance(names, str) else tuple(names or ())


def several(candidates: Sequence[tuple[Path, str]], modality: str, case: str) -> BadInput:
    """The error of a case with several files of one modality of which none was chosen."""
    (first, _), *others = candidates
    also = first_of([path for path, _ in others])
    apart = (
        "/".join(first.parts[-2:])
        if first.name in {path.name for path, _ in others}
        else first.name
    )
    return BadInput(
        f"{first}: expected one {modality} of case {case}, found also {also}. Choose one (--prefer '{apart}'), leave files out (--exclude-file PATTERN), or the case (--exclude {case})."
    )


def _fits(path: Path | str, pattern: str) -> bool:
    """Whether a pattern fits a text, or the end of a path from one of its folders on; an empty text fits none."""
    if not path:
        return False
    parts = Path(path).as_posix().split("/")
    return any(fnmatch.fnmatchcase("/".join(parts[first:]), pattern) for first in range(len(parts)))


def _shown(path: Path | str, root: Path | None) -> str:
    place = Path(path)
    if root and place.is_relative_to(root):
        return place.relative_to(root).as_posix()
    return str(path)


def _some(names: Iterable[str]) -> str:
    return first_of([f"'{name}'" for name in sorted(names)], 3)
