"""A cohort before it is prepared: its cases, splits and preparation, and the use and the problems of each file."""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput, first_of
from voxlate.base.executors.case_work import Progress
from voxlate.base.groups import grouped
from voxlate.base.messages import Message
from voxlate.scans.cases.align import Preparation, Resampled, check_resampling, find_common_grid
from voxlate.scans.cases.prepared import CaseEntry, Cohort
from voxlate.scans.cohorts.case_files import CaseFiles, CohortFiles, as_names
from voxlate.scans.cohorts.find import find_cohort, refuse_synthetic
from voxlate.scans.cohorts.manifest import root_and_manifest
from voxlate.scans.cohorts.owners import require_patients
from voxlate.scans.cohorts.split import (
    SPLITS,
    check_modalities,
    check_size,
    list_held_out,
    split_patients,
)
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Volume, canonical
from voxlate.scans.images.mask import clearest
from voxlate.scans.images.units import unit_of
from voxlate.scans.prepare_options import PrepareOptions

UNREAD = "cannot be read"


@dataclass(frozen=True)
class Inputs:
    """A cohort that was found, and how it is prepared.

    root: its folder; manifest: where it has one; splits: by patient; preparation: with the modalities that
    the options leave open; small: messages on too few patients, or modalities that a split lacks.
    """

    root: Path
    manifest: Path | None
    found: CohortFiles
    splits: dict[str, str]
    preparation: Preparation
    small: list[Message]


@dataclass(frozen=True)
class CheckedFile:
    """One file or DICOM series of a case: its modality or label map, its grid ("512×512×80, …"), and its unit."""

    case: str
    name: str
    path: str
    grid: str
    unit: str

    @property
    def is_read(self) -> bool:
        """Whether the file could be read."""
        return self.grid != UNREAD


@dataclass(frozen=True)
class Survey(Inputs):
    """A cohort whose scans were read and checked as `prepare` does, as `voxlate.survey` returns it.

    Args:
        root: folder of the cohort.
        manifest: table of the cases, None without one.
        found: the cases with their files (CohortFiles).
        splits: "train", "val" or "test" by patient.
        preparation: the options by which `prepare` would change scans, with those that were chosen.
        small: messages on too few patients, or modalities that a split lacks.
        files: each file with its case, name, grid and unit.
        problems: a sentence on each case that `prepare` would refuse.
        lost: messages on what resampling loses.
        table: cases, patients, modalities, units and grids (see overview).

    Example:
        >>> import voxlate
        >>> survey = voxlate.survey("COHORT", progress=False)
        >>> sorted(survey.splits.values()).count("train"), len(survey.files)
        (5, 12)
    """

    files: list[CheckedFile]
    problems: list[str]
    lost: list[Message]
    table: dict[str, Any]

    @property
    def facts(self) -> dict[str, Any]:
        """The survey as a table of plain values."""
        return {
            **self.table,
            "left_out": self.found.unclaimed,
            "unread": self.found.unread,
            "guessed": self.found.guessed,
            "fixed": self.preparation.fixed,
            "files": [vars(file) for file in self.files],
            "lost": list(map(str, self.lost)),
            "held_out": list_held_out(self.splits),
            "problems": self.problems,
        }


def read_inputs(cohort: Path | str, options: PrepareOptions) -> Inputs:
    """Find the cases of a cohort, split them and choose their preparation; raises BadInput where no case is found."""
    root, manifest = root_and_manifest(cohort, options.manifest)
    found = find_cohort(cohort, options, as_names(options.modalities) or None)
    cases = found.cases
    require_patients(found, root)
    if found.ignored:  # a split of our own could train on the user's test cases
        raise BadInput(found.ignored)
    refuse_synthetic(cases)
    splits = split_patients(cases, options.seed, options.shares)
    by_number = not options.shares and cases[0].split is None
    small = (check_size(splits) if by_number else []) + check_modalities(cases, splits)
    return Inputs(root, manifest, found, dict(splits), _preparation(options, cases), small)


def _preparation(options: PrepareOptions, cases: Sequence[CaseFiles]) -> Preparation:
    """How cases are prepared, with the modalities that the options leave open: the fixed one, and that of the brain."""
    asked = Preparation(
        **{field.name: getattr(options, field.name) for field in fields(Preparation)}
    )
    fixed = asked.fixed
    mask_from = asked.mask_from
    first = cases[0].files
    shared = set(first).intersection(*(case.files for case in cases))
    everywhere = [name for name in first if name in shared]
    best = clearest({name: unit_of(name) for name in everywhere or first})
    if asked.align is not None:
        fixed = fixed or best
    elif asked.resample or asked.register is not None:
        fixed = fixed or _finest(cases, everywhere)
    if asked.mask == "brain":
        mask_from = mask_from or best
    return replace(asked, fixed=fixed, mask_from=mask_from)


def _finest(cases: Sequence[CaseFiles], names: Sequence[str]) -> str | None:
    """The modality on whose grid resampling loses least: the smallest distance of slices, then the smallest voxels.

    Only these names are compared, in the first, middle and last case. None where there are no names.
    """
    losses = {}
    compared = {case.case: case for case in (cases[0], cases[len(cases) // 2], cases[-1])}
    for name in names if len(names) > 1 else ():
        sides = [read_volume(case.files[name], name).grid.spacing_mm for case in compared.values()]
        widest = max(map(max, sides))
        losses[name] = round(widest, 2), round(max(map(math.prod, sides)), 2)
    return min(names, key=losses.__getitem__) if losses else next(iter(names), None)


def survey(cohort: Path, options: PrepareOptions, progress: Progress) -> Survey:
    """Read every scan, mask and label map, and compare units and grids, as `prepare` does before it registers.

    Raises BadInput where no case is found.
    """
    inputs = read_inputs(cohort, options)
    cases = inputs.found.cases
    files = []
    problems = []
    resampled = []
    units = dict[str, tuple[str, str]]()
    guesses = defaultdict(list)
    for done, case in enumerate(cases, start=1):
        volumes = {}
        for name, path in case.paths.items():
            grid = UNREAD
            unit = ""
            try:
                volumes[name] = read_volume(path, name)
                grid = str(volumes[name].grid)
                unit = volumes[name].unit
                for guess in volumes[name].guesses:
                    guesses[f"{name}: {guess}"].append(case.case)
                if name in case.files:
                    check_unit(name, unit, case.case, units)
            except BadInput as error:
                problems.append(str(error))
            unit = unit if name in case.files else ""
            files.append(CheckedFile(case.case, name, str(path), grid, unit))
        try:
            if volumes.keys() == case.paths.keys():
                resampled.append(_resample(case, volumes, inputs.preparation))
        except BadInput as error:
            problems.append(str(error))
        progress(done, len(cases))
    inputs.found.guessed += [f"{text} ({first_of(names)})" for text, names in guesses.items()]
    found_units = {file.name: file.unit for file in files if file.unit}
    table = overview(cases, inputs.splits, found_units, {case.case for case in cases if case.mask})
    return Survey(
        **vars(inputs),
        files=files,
        problems=problems,
        lost=list(check_resampling(resampled, inputs.preparation)),
        table=table,
    )


def check_unit(name: str, unit: str, case: str, first: dict[str, tuple[str, str]]) -> None:
    """Raise BadInput where a modality has another unit than in the case before; first: (unit, case) by modality."""
    known, other = first.setdefault(name, (unit, case))
    if unit != known:
        raise BadInput(
            f"{name}: expected one unit in all cases, found {known} in {other} and {unit} in {case}. Convert one of them, or leave those cases out by a manifest."
        )


def _resample(
    case: CaseFiles, volumes: Mapping[str, Volume], preparation: Preparation
) -> Resampled:
    """Resample a case's scans, mask and labels to one grid by their headers; raises BadInput where they do not fit."""
    in_ras = {name: canonical(volume) for name, volume in volumes.items()}
    scans = {name: in_ras[name] for name in case.files}
    may_resample = preparation.resample or preparation.register is not None
    by_headers = replace(preparation, register=None, resample=may_resample)
    common = find_common_grid(case.case, scans, by_headers)
    for name, volume in in_ras.items():
        if name not in scans:
            common.align_labels(volume)
        elif preparation.register is None:
            common.align(name, volume)
    return case.case, common.grid, {name: volumes[name].grid for name in scans}


def cohort_overview(cohort: Cohort) -> dict[str, Any]:
    """The table of a prepared cohort; see overview."""
    masked = {entry.case for entry in cohort.cases if cohort.header(entry.case).has_mask_file}
    splits = {entry.patient: entry.split for entry in cohort.cases}
    return overview(cohort.cases, splits, cohort.units, masked)


def overview(
    cases: Sequence[CaseFiles | CaseEntry],
    splits: Mapping[str, str],
    units: Mapping[str, str],
    masked: Collection[str],
) -> dict[str, Any]:
    """Cases and patients in all and by split, and the same for each modality and label map; grids once prepared.

    masked: the cases that have a mask file.
    """
    groups = grouped(
        (name, case)
        for case in cases
        for name in {*(case.present if isinstance(case, CaseEntry) else case.files), *case.labels}
    )
    shapes = (case.shape for case in cases if isinstance(case, CaseEntry))
    grids = Counter("×".join(map(str, reversed(shape))) for shape in shapes)
    rows = {
        "cases": _by_split(cases, splits),
        "patients": _by_split({case.patient: case for case in cases}.values(), splits),
        **{name: _by_split(groups[name], splits) for name in sorted(groups)},
    }
    if masked:
        rows["mask"] = _by_split([case for case in cases if case.case in masked], splits)
    return {"rows": rows, "units": dict(units), "grids": dict(grids.most_common())}


def _by_split(cases: Iterable[CaseFiles | CaseEntry], splits: Mapping[str, str]) -> dict[str, int]:
    counts = Counter(splits[case.patient] for case in cases)
    return {"all": sum(counts.values()), **{name: counts[name] for name in SPLITS}}
