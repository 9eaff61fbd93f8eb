"""From a folder of scans to a prepared cohort: one grid a case, checked, masked, split by patient."""

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from voxlate import __version__
from voxlate.cases.align import Preparation
from voxlate.cases.audit import (
    check_alignment,
    examined_cases,
    misalignments,
    not_examined,
    to_refine,
)
from voxlate.cases.case import PreparedCase, map_arrays, prepare_case, read_header, write_case
from voxlate.cases.case_header import CaseHeader
from voxlate.cases.checking import check_resampling, check_unit, finest
from voxlate.cases.copies import check_copies, signatures
from voxlate.cases.fingerprint import check_origins, check_widths, fingerprint
from voxlate.cases.outliers import check_outliers
from voxlate.cases.prepared import (
    SHARED,
    VERSION,
    Cohort,
    Entry,
    case_path,
    open_cohort,
    read_tables,
    write_cohort,
)
from voxlate.cohorts.case_files import CaseFiles, CohortFiles
from voxlate.cohorts.choice import as_names
from voxlate.cohorts.find import find_cohort
from voxlate.cohorts.manifest import root_and_manifest
from voxlate.cohorts.patient_names import EACH
from voxlate.cohorts.slice_lists import require_patients
from voxlate.cohorts.split import check_size, split_patients
from voxlate.executors.choose import named_executor
from voxlate.executors.job import Executor, InProcess, Plain, case_sentence
from voxlate.executors.local import LocalExecutor
from voxlate.formats.io import content_hash, read_volume
from voxlate.images.mask import clearest
from voxlate.images.misalignment import Misalignment
from voxlate.images.register import write_transform
from voxlate.images.units import unit_of
from voxlate.options.option import merge
from voxlate.options.prepare import PrepareOptions
from voxlate.system.errors import BadInput, CannotWrite, first_of
from voxlate.system.files import is_scaffold, lock
from voxlate.system.machine import cores
from voxlate.system.messages import Say, message

CaseProgress = Callable[[int, int, str], None]
Run = Callable[[Callable[[CaseFiles], bool], list[CaseFiles]], Iterator[tuple[str, bool]]]
MOST_WORKERS = 8
OWN_NAMES = (
    "transforms",
    "latents",
    "report.html",
    "messages.jsonl",
)  # further entries of a cohort's folder
NO_OPTIONS = ("unread", "left_out", "voxlate")  # of cohort.json's provenance; they may differ


def prepare(
    root: Path | str,
    out: Path | str,
    options: PrepareOptions | None = None,
    *,
    executor: Executor | None = None,
    progress: CaseProgress | None = None,
    say: Say = lambda _: None,
    **changes: Any,
) -> Cohort:
    """Prepare a cohort for training; the same call again resumes, and prepares cases again whose files have changed.

    root: a folder, or a manifest (CSV, TSV) in one. changes: fields of the options; see find.find_cohort for those of
    the layout. spacing_mm: (D, H, W), default as scanned; matrix: (H, W). resample takes the grid of the
    modality `fixed`, by default the first one (in the order of `modalities`, else by name); register keeps its
    transforms; align: "midline" turns and shifts heads until the mid-sagittal plane of the fixed scan (default: as for
    mask_from) is the grid's middle column; the case's header keeps that grid with the files' own.
    mask_from (default: plain CT, another CT, T1, else the first) must be a source of the models trained on this cohort,
    since synthesis has sources only. shares: default see split.usual_shares.
    workers: processes, each holding one case in memory. executor: works on the cases instead of these processes; it
    prepares all cases that it can before it raises BadInput with the others, so that the next call has only those left.
    progress(done, total, case) is called after each case, say: is called with messages.
    Raises BadInput for bad cases, and for an `out` that holds anything else, such as a cohort prepared with other
    options.
    """
    asked = merge(PrepareOptions, options, changes)
    executor = executor or named_executor(asked)
    (root, table), out = root_and_manifest(root, asked.manifest), Path(out)
    found = find_cohort(root, replace(asked, manifest=table), asked.modalities)
    cases = found.cases
    require_patients(cases, root)
    preparation = preparation_of(asked, cases)  # stated in cohort.json, and so in every model of it
    splits = split_patients(
        [(case.patient, case.split) for case in cases], asked.seed, asked.shares
    )
    are_stated = cases[0].split is not None
    for one in [] if asked.shares or are_stated else check_size(splits):
        say(one)
    made = _provenance(root, table, asked, preparation, found)
    _refuse_other(
        out, made, {case.case: [case.patient, splits[case.patient], case.fold] for case in cases}
    )
    examined = examined_cases(
        {case.case: case.patient for case in cases}, asked.audit_cases if asked.audit else 0
    )
    with lock(out):
        run = partial(
            _each, by=executor or _processes(asked.workers, len(cases)), at_once=executor is None
        )
        again = _prepare_all(cases, out, preparation, examined, run, progress)
        if asked.audit:
            _refine_worst(cases, out, preparation, run)
    if again:
        text = f"{len(again)} cases were prepared again, because their files or the options have changed: {first_of(again)}."
        say(message("prepared-again", text, cases=len(again)))
    headers = [read_header(case_path(out, case.case)) for case in cases]
    write_cohort(_cohort(out, found, headers, splits, preparation, made))
    _remove_unused_transforms(out, headers)
    return open_cohort(out)


def _cohort(
    out: Path,
    found: CohortFiles,
    headers: list[CaseHeader],
    splits: Mapping[str, str],
    preparation: Preparation,
    made: dict[str, Any],
) -> Cohort:
    """The prepared cohort, with warnings of all that is unusual in it."""
    units = _units(headers)
    entries = tuple(
        _entry(header, splits[case.patient], case.fold)
        for header, case in zip(headers, found.cases)
    )
    training = [header for header, entry in zip(headers, entries) if entry.split == "train"]
    masks = {case.case: case.mask for case in found.cases if case.mask is not None}
    return Cohort(
        folder=out,
        cases=entries,
        modalities=tuple(sorted(units)),
        units=units,
        fingerprint=fingerprint(headers, training),
        warnings=(
            *(message("unread", text) for text in found.unread),
            *(message("left-out", f"Left out: {text}.") for text in found.unclaimed),
            *(message("assumed", f"Assumed: {text}.") for text in found.guessed),
            *(check_widths(headers) if found.heads else ()),
            *check_copies(headers, splits, out / "cases", masks),
            *check_origins(headers),
            *check_outliers(headers, lambda case: map_arrays(case_path(out, case))),
            *check_resampling(headers, preparation),
            *check_alignment(headers, preparation),
        ),
        provenance=made,
    )


def _provenance(
    root: Path,
    table: Path | None,
    asked: PrepareOptions,
    preparation: Preparation,
    found: CohortFiles,
) -> dict[str, Any]:
    """The inputs and options as cohort.json states them; paths are absolute, so that every folder reads them alike."""
    split_by = f"patient, shares {asked.shares or 'by number of patients'}, seed {asked.seed}"
    if found.cases[0].split is not None:
        split_by = "manifest" if table else "lists"
    names = {
        name: None if getattr(asked, name) is None else list(as_names(getattr(asked, name)))
        for name in ("prefer", "exclude", "exclude_file")
    }
    return {
        "root": _place(root),
        "pattern": asked.pattern,
        "preset": None if asked.preset is None else str(asked.preset),
        "manifest": _place(table),
        "patients": EACH if asked.patients == EACH else _place(asked.patients),
        **({"allow_outside": True} if asked.allow_outside else {}),
        "modalities": asked.modalities,
        **names,
        **asdict(preparation),
        "unread": found.unread,
        "left_out": found.unclaimed,
        "split_by": split_by,
        "voxlate": __version__,
    }


def preparation_of(options: PrepareOptions, cases: list[CaseFiles]) -> Preparation:
    """How cases are prepared, with the modalities that the options leave open: the fixed one, and that of the brain."""
    asked = Preparation(
        **{field.name: getattr(options, field.name) for field in fields(Preparation)}
    )
    fixed, mask_from = asked.fixed, asked.mask_from
    if asked.align is not None:
        fixed = fixed or _clearest_everywhere(cases)
    elif asked.resample or asked.register is not None:
        fixed = fixed or finest(cases, _everywhere(cases))
    if asked.mask == "brain":
        mask_from = asked.mask_from or _clearest_everywhere(cases)
    return replace(asked, fixed=fixed, mask_from=mask_from)


def _clearest_everywhere(cases: list[CaseFiles]) -> str:
    """The modality in which a brain is found best, among those that every case has."""
    return clearest({name: unit_of(name) for name in _everywhere(cases) or cases[0].files})


def _everywhere(cases: list[CaseFiles]) -> list[str]:
    """The modalities that every case has."""
    return [name for name in cases[0].files if all(name in case.files for case in cases)]


def _place(path: Path | str | None) -> str | None:
    return None if path is None else str(Path(path).resolve())


def _refuse_other(
    out: Path,
    provenance: dict[str, Any],
    cases: dict[str, list[str | int | None]],
) -> None:
    """Raise BadInput unless the folder is new, empty, unfinished or that of the same cohort.

    cases: patient, split and stated fold of each.
    """
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out}: expected a folder to write to, found a file. Choose another name.")
    entries = [path.name for path in out.iterdir() if not is_scaffold(path)] if out.exists() else []
    others = sorted(set(entries) - {"cases", "cohort.json", *OWN_NAMES})
    if "cohort.json" not in entries:
        names = [path.name for path in out.glob("cases/*") if not is_scaffold(path)]
        others += sorted(set(names) - {f"{case}.safetensors" for case in cases})
    if others:
        raise BadInput(
            f"{out}: expected an empty folder or this cohort's, found {others[0]}. Choose another folder."
        )
    if "cohort.json" not in entries:
        return
    there = read_tables(out)
    differs = _differences(there, provenance, cases)
    if differs:
        raise BadInput(
            f"{out}: expected an empty folder, or the same cohort and options to resume, found a prepared cohort of {len(there.get('cases', []))} cases with other options (differs in: {'; '.join(differs)}). Choose another --out, or remove the folder."
        )


def _differences(
    there: dict[str, Any],
    provenance: dict[str, Any],
    cases: dict[str, list[str | int | None]],
) -> list[str]:
    """The differences of a prepared cohort from the call, each in a few words."""
    old = there.get("made", {})
    differences = list[str]()
    for name, now in json.loads(json.dumps(provenance)).items():
        was = old.get(name)
        if name not in NO_OPTIONS and was != now:
            there_and_here = ["none" if value is None else value for value in (was, now)]
            differences.append("{}, {} there and {} here".format(name, *there_and_here))
    before = dict[Any, list[Any]]()
    for entry in there.get("cases", []):
        before[entry.get("case")] = [entry.get(key) for key in ("patient", "split", "fold")]
    if before.keys() != cases.keys():
        differences.append(
            f"cases, {len(before)} there and {len(cases)} here, {len(before.keys() & cases.keys())} in both"
        )
    elif before != cases:
        differences.append("patients, splits or folds")
    return differences


def _remove_unused_transforms(out: Path, headers: list[CaseHeader]) -> None:
    """Remove the transforms that no case uses, since an unfinished preparation went on with other options."""
    used = set[Path]()
    for header in headers:
        used |= {out / scan.transform for scan in header.registered.values() if scan.transform}
    for path in set(out.glob("transforms/*/*")) - used:
        path.unlink()
    for folder in out.glob("transforms/*"):
        if not any(folder.iterdir()):
            folder.rmdir()


def _prepare_all(
    cases: list[CaseFiles],
    out: Path,
    preparation: Preparation,
    examined: frozenset[str],
    run: Run,
    progress: CaseProgress | None,
) -> list[str]:
    """Prepare the cases; gives the names of those that were prepared before from other files or with other options."""
    work = partial(_prepare_files, out=out, preparation=preparation, examined=examined)
    again = list[str]()
    for done, (case, was_there) in enumerate(run(work, cases), start=1):
        if was_there:
            again.append(case)
        if progress is not None:
            progress(done, len(cases), case)
    return sorted(again)


def _processes(workers: int | None, cases: int) -> Executor:
    """The processes of this machine that prepare cases by default; this process alone if it would be a single one."""
    processes = min(workers or min(cores(), MOST_WORKERS), cases)
    if processes == 1:
        return InProcess()
    return LocalExecutor(processes, method=multiprocessing.get_start_method())


def _each(
    work: Callable[[CaseFiles], bool],
    cases: list[CaseFiles],
    by: Executor,
    at_once: bool,
) -> Iterator[tuple[str, bool]]:
    """The name of each case and the result of `work` on it, in the order in which they finish.

    Raises the first error: at once, or after all other cases.
    """
    failed = dict[str, Exception]()
    with closing(by.run(Plain(work), cases)) as outcomes:
        for number, outcome in outcomes:
            case = cases[number].case
            if outcome.error is None:
                yield case, outcome.result
            elif at_once or isinstance(outcome.error, CannotWrite):
                raise outcome.error
            else:
                failed[case] = outcome.error
    if failed:
        sentences = [case_sentence(case, failed[case]) for case in sorted(failed)]
        if len(cases) == 1:
            raise BadInput(sentences[0])
        raise BadInput(
            f"prepare: expected {len(cases)} cases that can be prepared, found {len(failed)} that cannot; the others are prepared. Correct or exclude them, and run the same command again: {' '.join(sentences)}"
        )


def _prepare_files(
    files: CaseFiles,
    out: Path,
    preparation: Preparation,
    examined: frozenset[str],
) -> bool:
    """Prepare one case, unless its file exists and has the same inputs and options.

    Gives whether it replaced a file of other inputs or options.
    """
    path = case_path(out, files.case)
    audit = files.case in examined
    inputs = _digest_of_inputs(files, preparation)
    was_there = path.exists()
    if was_there and read_header(path).inputs == inputs:
        if audit and not_examined(read_header(path)):
            _examine(path, preparation, coarse=True)
        return False
    case = prepare_case(
        files.case,
        {name: read_volume(place, name) for name, place in files.files.items()},
        preparation,
        mask=None if files.mask is None else read_volume(files.mask, "mask"),
        labels={name: read_volume(place, name) for name, place in files.labels.items()},
    )
    misaligned = dict[str, Misalignment]()
    if audit:
        misaligned = misalignments(case, preparation.fixed, coarse=True)
    header = replace(
        case.header,
        patient=files.patient,
        inputs=inputs,
        misaligned=misaligned,
        signatures=signatures(case),
    )
    for name, transform in case.transforms.items():
        write_transform(out / header.registered[name].transform, transform)
    write_case(path, replace(case, header=header))
    return was_there


def _refine_worst(
    cases: list[CaseFiles],
    out: Path,
    preparation: Preparation,
    run: Run,
) -> None:
    """Estimate the misalignment of the worst pairs at the finest voxels, until the worst of all are estimated so."""
    work = partial(_refine_files, out=out, preparation=preparation)
    while names := to_refine([read_header(case_path(out, case.case)) for case in cases]):
        for _ in run(work, [case for case in cases if case.case in names]):
            pass


def _refine_files(files: CaseFiles, out: Path, preparation: Preparation) -> bool:
    _examine(case_path(out, files.case), preparation, coarse=False)
    return True


def _examine(path: Path, preparation: Preparation, coarse: bool) -> None:
    """Write the misalignment of a prepared case's scans into its header."""
    case = PreparedCase(
        read_header(path), load_file(path)
    )  # in memory: a mapped file cannot be replaced everywhere
    misaligned = misalignments(case, preparation.fixed, coarse)
    write_case(path, replace(case, header=replace(case.header, misaligned=misaligned)))


def _digest_of_inputs(files: CaseFiles, preparation: Preparation) -> str:
    inputs = [(name, content_hash(path)) for name, path in files.paths.items()]
    how = preparation if preparation.matrix is None else (preparation, preparation.matrix)
    text = repr((VERSION, files.case, files.patient, how, inputs))
    return hashlib.sha256(text.encode()).hexdigest()


def _units(headers: list[CaseHeader]) -> dict[str, str]:
    """The unit of each modality; raises BadInput where it has one unit in one case and another in the next."""
    units = dict[str, str]()
    first = dict[str, tuple[str, str]]()
    for header in headers:
        units |= header.units
        for name, unit in header.units.items():
            check_unit(name, unit, header.case, first)
    return units


def _entry(header: CaseHeader, split: str, fold: int | None) -> Entry:
    same = {name: getattr(header, name) for name in (*SHARED, "registered", "misaligned")}
    mask_ml = round(header.mask_ml, 3)
    return Entry(**same, split=split, present=header.visible, mask_ml=mask_ml, fold=fold)
