"""What `prepare` would make of a folder of scans: its cases, the use of each file, and the problems; nothing is written."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxlate.cases.align import Preparation
from voxlate.cases.checking import Checked, check_cases
from voxlate.cases.prepare import preparation_of
from voxlate.cases.prepared import SPLITS, Cohort, Entry
from voxlate.cohorts.case_files import CaseFiles, CohortFiles
from voxlate.cohorts.find import find_cohort
from voxlate.cohorts.manifest import root_and_manifest
from voxlate.cohorts.slice_lists import require_patients
from voxlate.cohorts.split import check_size, describe_held_out, list_held_out, split_patients
from voxlate.options.prepare import PrepareOptions
from voxlate.system.messages import Message


@dataclass(frozen=True)
class Survey:
    """A cohort that was read and checked as `prepare` does.

    root: its folder; splits: by patient; table: see overview; small: on too few patients.
    """

    root: Path
    found: CohortFiles
    splits: dict[str, str]
    preparation: Preparation
    checked: Checked
    table: dict[str, Any]
    small: list[Message]

    @property
    def held_out_line(self) -> str:
        """Which patients are held out from training, in a line; "" where none is."""
        return describe_held_out(self.splits)

    @property
    def facts(self) -> dict[str, Any]:
        """The survey as a table of plain values."""
        return {
            **self.table,
            "left_out": self.found.unclaimed,
            "unread": self.found.unread,
            "guessed": self.found.guessed,
            "fixed": self.preparation.fixed,
            "files": [vars(file) for file in self.checked.files],
            "lost": [str(one) for one in self.checked.lost],
            "held_out": list_held_out(self.splits),
            "problems": self.checked.problems,
        }


def survey(
    cohort: Path,
    options: PrepareOptions,
    progress: Callable[[int, int, str], None] | None = None,
) -> Survey:
    """Read and check all scans of a cohort; raises BadInput where no case is found."""
    root, _ = root_and_manifest(cohort, options.manifest)
    found = find_cohort(cohort, options, options.modalities)
    require_patients(found.cases, root)
    splits = split_patients(
        [(case.patient, case.split) for case in found.cases], options.seed, options.shares
    )
    preparation = preparation_of(options, found.cases)
    checked = check_cases(found.cases, preparation, progress)
    units = {file.name: file.unit for file in checked.files if file.unit}
    table = overview(found.cases, splits, units, {case.case for case in found.cases if case.mask})
    by_number = options.shares is None and found.cases[0].split is None
    small = check_size(splits) if by_number else []
    return Survey(root, found, dict(splits), preparation, checked, table, small)


def prepared_overview(cohort: Cohort) -> dict[str, Any]:
    """The table of a prepared cohort; see overview."""
    masked = {entry.case for entry in cohort.cases if cohort.header(entry.case).has_mask_file}
    splits = {entry.patient: entry.split for entry in cohort.cases}
    return overview(cohort.cases, splits, cohort.units, masked)


def overview(
    cases: Sequence[CaseFiles | Entry],
    splits: Mapping[str, str],
    units: Mapping[str, str],
    masked: Collection[str],
) -> dict[str, Any]:
    """Cases and patients in all and by split, and the same for each modality and label map; grids once prepared.

    masked: the cases that have a mask file.
    """
    rows = {
        "cases": _by_split(cases, splits),
        "patients": _by_split({one.patient: one for one in cases}.values(), splits),
    }
    for name in sorted({name for one in cases for name in _present(one)}):
        rows[name] = _by_split([one for one in cases if name in _present(one)], splits)
    if masked:
        rows["mask"] = _by_split([one for one in cases if one.case in masked], splits)
    grids = Counter(
        "×".join(map(str, reversed(one.shape))) for one in cases if isinstance(one, Entry)
    )
    return {"rows": rows, "units": dict(units), "grids": dict(grids.most_common())}


def _present(one: CaseFiles | Entry) -> list[str]:
    return [*(one.present if isinstance(one, Entry) else one.files), *one.labels]


def _by_split(cases: Iterable[CaseFiles | Entry], splits: Mapping[str, str]) -> dict[str, int]:
    counts = Counter(splits[one.patient] for one in cases)
    return {"all": sum(counts.values()), **{name: counts[name] for name in SPLITS}}
