"""From a folder of scans to a prepared cohort: one grid a case, checked, masked, split by patient."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from voxlate import __version__
from voxlate.base.errors import BadInput, CannotWrite
from voxlate.base.executors.case_work import (
    Executor,
    InProcess,
    Progress,
    Work,
    case_sentence,
    no_report,
    run_cases,
)
from voxlate.base.executors.workers import LocalExecutor, choose_executor
from voxlate.base.files import is_scaffold, lock
from voxlate.base.machine import cores
from voxlate.base.messages import UNOWNED, Message, Say, by_consequence, message
from voxlate.base.option import merge
from voxlate.scans.cases.align import Preparation
from voxlate.scans.cases.case import (
    DIGITS,
    CaseHeader,
    PreparedCase,
    misalignments,
    prepare_case,
    read_header,
    write_case,
)
from voxlate.scans.cases.prepared import (
    SHARED,
    VERSION,
    CaseEntry,
    Cohort,
    case_path,
    open_cohort,
    write_cohort,
)
from voxlate.scans.cohorts.case_files import CaseFiles, CohortFiles, as_names
from voxlate.scans.cohorts.files_below import refuse_synthetic
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.cohorts.owners import require_patients
from voxlate.scans.cohorts.split import check_modalities, check_size, split_patients
from voxlate.scans.formats.io import content_hash, read_volume
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import clearest
from voxlate.scans.images.ranges import window_sentence
from voxlate.scans.images.register import write_transform
from voxlate.scans.images.units import unit_of
from voxlate.scans.layout_options import PrepareOptions

MOST_WORKERS = 8
# Further entries of a cohort's folder.
OWN_NAMES = "transforms", "latents", "report.html"
# of cohort.json's provenance; they may differ
NO_OPTIONS = ("unread", "failed", "left_out", "voxlate")

MOST_FAILED = 0.5  # share of failed cases from which no cohort is written
MOST_SENTENCES = 10  # errors printed then


@dataclass(frozen=True)
class Inputs:
    """A cohort that was found, and how it is prepared.

    splits: by patient; preparation: with the modalities that the options leave open; small: messages on too few patients, or
    modalities that a split lacks.
    """

    found: CohortFiles
    splits: dict[str, str]
    preparation: Preparation
    small: list[Message]


@dataclass(frozen=True)
class Examination:
    """What is measured of each case while it is prepared, and said of the whole cohort.

    measure: gives the case's header with its measures, from the case, its scans as their files have them, and the mask
    of its file. judge: gives messages, from the headers of all cases, the inputs of the cohort, and the folder of the
    prepared cases. Both are functions of a module, because they are sent to other processes.
    """

    measure: Callable[[PreparedCase, Mapping[str, Volume], Volume | None], CaseHeader]
    judge: Callable[[Sequence[CaseHeader], Inputs, Path], Iterable[Message]]


def prepare(
    root: Path | str,
    out: Path | str,
    options: PrepareOptions | None = None,
    *,
    examination: Examination | None = None,
    progress: Progress = no_report,
    say: Say = lambda _: None,
    **changes: Any,
) -> Cohort:
    """Prepare a cohort for training; the same call again resumes, and prepares cases again whose files have changed.

    root: a folder, or a manifest (CSV, TSV) in one. changes: fields of the options; see find.find_cohort for those of
    the layout. spacing_mm: (D, H, W), default as scanned; matrix: (H, W) or (D, H, W). resample takes the grid of the
    modality `fixed`, by default the first one (in the order of `modalities`, else by name); register keeps its
    transforms; align: "midline" turns and shifts heads until the mid-sagittal plane of the fixed scan (default: as for
    mask_from) is the grid's middle column; the case's header keeps that grid with the files' own.
    mask_from (default: plain CT, another CT, T1, else the first) must be a source of the models trained on this cohort,
    since synthesis has sources only. window: see Cohort.windows. shares: default see split.usual_shares.
    examination: of each case that is prepared, and of the cohort (see checks/cohort_examination.py).
    workers: processes, each holding one case in memory.
    A case that cannot be prepared is left out, as the provenance states ("failed", "unread"), and joins the cohort by the
    same call once its files are corrected.
    progress(done, total) is called after each case, say: is called with messages.
    Raises BadInput where half of the cases cannot be prepared, and for an `out` that holds anything else, such as a
    cohort of other options.
    """
    asked = merge(PrepareOptions, options, changes)
    inputs = read_inputs(root, asked)
    out = Path(out)
    for warning in inputs.small:
        say(warning)
    made = _provenance(inputs, asked)
    _refuse_other(out, made)
    work = _Work(out, inputs.preparation, examination, asked.audit)
    cases = inputs.found.cases

    def step(_: str, done: int, total: int) -> None:
        """Report a finished case."""
        progress(done, total)

    with lock(out):
        executor = _executor_of(asked, len(cases))
        outcomes = run_cases(executor, work, cases, step, no_report, CannotWrite)
    failed = {
        case.case: case_sentence(case.case, outcome.error)
        for case, outcome in zip(cases, outcomes)
        if outcome.error is not None
    }
    inputs = _without(inputs, failed)
    headers = [read_header(case_path(out, case.case)) for case in inputs.found.cases]
    made |= {"unread": inputs.found.unread, "failed": sorted(failed)}
    write_cohort(_cohort(out, inputs, headers, made, examination))
    return open_cohort(out)


def _without(inputs: Inputs, failed: Mapping[str, str]) -> Inputs:
    """The inputs without the cases that cannot be prepared, for these reasons; raises BadInput where these are half of all."""
    found = inputs.found
    if len(failed) >= MOST_FAILED * len(found.cases):
        sentences = [failed[case] for case in sorted(failed)][:MOST_SENTENCES]
        raise BadInput(
            f"prepare: expected {len(found.cases)} cases that can be prepared, found {len(failed)} that cannot. Correct or exclude them (--exclude), and run the same command again: {' '.join(sentences)}"
        )
    cases = [case for case in found.cases if case.case not in failed]
    unread = [*found.unread, *(failed[case].removesuffix(".") for case in sorted(failed))]
    return replace(inputs, found=replace(found, cases=cases, unread=unread))


def _cohort(
    out: Path,
    inputs: Inputs,
    headers: list[CaseHeader],
    made: dict[str, Any],
    examination: Examination | None,
) -> Cohort:
    """The prepared cohort, with warnings of what was assumed and of what its examination says.

    Raises BadInput where a modality has one unit in one case and another in the next.
    """
    found = inputs.found
    units = dict[str, str]()
    entries = []
    for header, case in zip(headers, found.cases):
        for name, unit in header.units.items():
            if units.setdefault(name, unit) != unit:
                raise BadInput(
                    f"{name}: expected one unit in all cases, found {units[name]} in others and {unit} in {case.case}. Convert one of them, or leave those cases out (--exclude)."
                )
        entries.append(
            CaseEntry(
                **{name: getattr(header, name) for name in SHARED},
                split=inputs.splits[case.patient],
                present=header.visible,
                mask_ml=round(header.mask_ml, 3),
                fold=case.fold,
            )
        )
    cohort = Cohort(out, tuple(entries), tuple(sorted(units)), units, (), made)
    judged = () if examination is None else examination.judge(headers, inputs, out / "cases")
    return replace(
        cohort,
        warnings=(
            *(message("unread", f"{text}.") for text in found.unread),
            *(message("left-out", f"Left out: {text}.") for text in found.unclaimed),
            *(
                message(UNOWNED if text in found.unowned else "assumed", f"Assumed: {text}.")
                for text in found.guessed
            ),
            *_about_windows(cohort),
            *([message("no-pairs", found.unpaired, grade="caution")] if found.unpaired else []),
            *by_consequence(judged),
        ),
    )


def _about_windows(cohort: Cohort) -> Iterable[Message]:
    """What pictures of CT are assumed to show; raises BadInput for a stated window of a cohort without such pictures."""
    if cohort.has_stated_window:
        if not cohort.windows:
            raise BadInput(
                f"--window: expected pictures of a CT, found {', '.join(cohort.modalities)} without any. Drop --window."
            )
        return
    for name, window in cohort.windows.items():
        yield message("assumed", f"Assumed: {window_sentence(name, window)}.")


def _provenance(inputs: Inputs, asked: PrepareOptions) -> dict[str, Any]:
    """The inputs and options as cohort.json states them; paths are absolute, so that every folder reads them alike.

    cases: a digest of names, patients, splits and folds.
    """
    found = inputs.found
    manifest = found.manifest
    placed = [
        (case.case, case.patient, inputs.splits[case.patient], case.fold) for case in found.cases
    ]
    split_by = f"patient, shares {asked.shares or 'by number of patients'}, seed {asked.seed}"
    if found.cases[0].split is not None:
        split_by = "manifest" if manifest else "lists"
    return {
        "root": str(found.root.resolve()),
        "pattern": asked.pattern,
        "preset": None if asked.preset is None else str(asked.preset),
        "manifest": _place(manifest),
        "patients": _place(asked.patients),
        **({"allow_outside": True} if asked.allow_outside else {}),
        "modalities": [*as_names(asked.modalities)] or None,
        "exclude": [*as_names(asked.exclude)] or None,
        "window": asked.window,
        **asdict(inputs.preparation),
        "cases": hashlib.sha256(repr(sorted(placed)).encode()).hexdigest()[:DIGITS],
        "unread": found.unread,
        "left_out": found.unclaimed,
        "split_by": split_by,
        "voxlate": __version__,
    }


def _place(stated: Path | str | None) -> str | None:
    """A file as an absolute path; None, 'each' and regular expressions for patients as they are."""
    if stated is None:
        return None
    return str(Path(stated).resolve() if Path(stated).is_file() else stated)


def _refuse_other(out: Path, provenance: dict[str, Any]) -> None:
    """Raise BadInput unless the folder is new, empty, unfinished or that of the same cohort."""
    if out.is_file():
        raise BadInput(f"{out}: expected a folder to write to, found a file. Choose another name.")
    entries = {path.name for path in out.glob("*") if not is_scaffold(path)}
    others = sorted(entries - {"cases", "cohort.json", *OWN_NAMES})
    if others:
        raise BadInput(
            f"{out}: expected an empty folder or this cohort's, found {others[0]}. Choose another folder, or remove this one."
        )
    if "cohort.json" not in entries:
        return
    old = open_cohort(out).provenance
    here = json.loads(json.dumps(provenance))
    differs = [name for name in here.keys() - {*NO_OPTIONS} if old.get(name) != here[name]]
    if differs:
        raise BadInput(
            f"{out}: expected an empty folder, or the same cohort and options to resume, found a prepared cohort of other ones (differs in: {', '.join(sorted(differs))}). Choose another --out, or remove the folder."
        )


def _executor_of(asked: PrepareOptions, cases: int) -> Executor:
    """The executor that is asked for, by default processes of this machine, or this process where it is a single one."""
    if asked.executor:
        return choose_executor(asked)
    processes = min(asked.workers or min(cores(), MOST_WORKERS), cases)
    return LocalExecutor(processes) if processes > 1 else InProcess()


@dataclass(frozen=True)
class _Work:
    """The work on the cases of a cohort, which is sent to each process; audit: whether misalignment is measured."""

    out: Path
    preparation: Preparation
    examination: Examination | None
    audit: bool
    uses_network: ClassVar[bool] = False

    def open(self) -> Work:
        """See Job.open."""
        return lambda files, _: self.prepare(files)

    def prepare(self, files: CaseFiles) -> None:
        """Prepare one case, unless its file exists and has the same inputs and options."""
        path = case_path(self.out, files.case)
        hashes = [(name, content_hash(place)) for name, place in files.paths.items()]
        text = repr((VERSION, files.case, files.patient, self.preparation, hashes, self.audit))
        inputs = hashlib.sha256(text.encode()).hexdigest()
        if path.exists() and read_header(path).inputs == inputs:
            return
        scans = {name: read_volume(place, name) for name, place in files.paths.items()}
        mask = scans.pop("mask", None)
        labels = {name: scans.pop(name) for name in files.labels}
        case = prepare_case(files.case, scans, self.preparation, mask=mask, labels=labels)
        misaligned = misalignments(case, self.preparation.fixed) if self.audit else {}
        header = case.header
        if self.examination is not None:
            header = self.examination.measure(case, scans, mask)
        header = replace(header, patient=files.patient, inputs=inputs, misaligned=misaligned)
        for name, transform in case.transforms.items():
            write_transform(self.out / "transforms" / files.case / f"{name}.tfm", transform)
        write_case(path, replace(case, header=header))


def read_inputs(cohort: Path | str, options: PrepareOptions) -> Inputs:
    """Find the cases of a cohort, split them and choose their preparation; raises BadInput where no case is found."""
    found = find_cohort(cohort, options, as_names(options.modalities) or None)
    cases = found.cases
    require_patients(found)
    if found.ignored:  # a split of our own could train on the user's test cases
        raise BadInput(found.ignored)
    refuse_synthetic(cases)
    splits = split_patients(cases, options.seed, options.shares)
    by_number = not options.shares and cases[0].split is None
    small = (check_size(splits) if by_number else []) + check_modalities(cases, splits)
    return Inputs(found, dict(splits), _preparation(options, cases), small)


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

    Only these names are compared, in the middle case. None where there are no names.
    """
    files = cases[len(cases) // 2].files

    def loss(name: str) -> tuple[float, float]:
        """The largest side in mm and the volume in mm³ of a scan's voxels."""
        sides = read_volume(files[name], name).grid.spacing_mm
        return round(max(sides), 2), round(math.prod(sides), 2)

    return min(names, key=loss, default=None)
