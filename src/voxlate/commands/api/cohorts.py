"""The commands on scans and cohorts: phantom, prepare, manifest, info."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.table import Table
from rich.text import Text

from voxlate.anatomy.phantom_options import PhantomOptions
from voxlate.base.errors import first_of, plural
from voxlate.base.messages import worst_grade
from voxlate.base.option import MainOption
from voxlate.commands.api.entry import (
    Argument,
    Command,
    Out,
    Place,
    Undone,
)
from voxlate.commands.api.progress import Reporter
from voxlate.scans.layout_options import (
    MAX_VOLUME,
    Layout,
    PrepareOptions,
    allow_volumes,
    quote_path,
)

if TYPE_CHECKING:
    from voxlate.scans.cases.prepared import Cohort
    from voxlate.scans.cohorts.case_files import CohortFiles

COLUMNS = ("all", "train", "val", "test")
Root = Annotated[
    Place, Argument("Folder with one folder per case, or a manifest (CSV).", metavar="COHORT")
]


def _phantom_lines(done: list[Path], asked: Any) -> Iterator[str]:
    count, place = plural(len(done), "case"), quote_path(asked.out)
    yield f"{count} in {asked.out}. Next:  voxlate prepare {place} --out PREPARED"


@Command(
    """
    phantom --out COHORT --cases 24 --size 96 96 48
    phantom --labels MAPS --tissues synthseg --spacing-mm 1 1 1 --out COHORT
    """,
    lines=_phantom_lines,
)
def phantom(out: Out, *, options: PhantomOptions, progress: Reporter) -> list[Path]:
    """Write a cohort of synthetic heads, or of bodies from label maps, in MR, CT, CTA, TOF, SWI and perfusion.
    \f
    Returns:
        list[Path]: The folder of each case, with a NIfTI file for each modality.

    Raises:
        BadInput: the folder has a phantom cohort of other settings; or a modality or label map is unknown.

    Example:
        >>> import voxlate
        >>> (case,) = voxlate.phantom("HEADS", cases=1, size=(24, 32, 24), modalities=["t1", "ct"], progress=False)
        >>> (case / "t1.nii.gz").is_file(), (case / "ct.nii.gz").is_file()
        (True, True)
    """
    from voxlate.anatomy.phantom_cohort import write_cohort

    return write_cohort(Path(out), options, progress=progress.count("phantom"))


def _prepare_lines(done: "Cohort", asked: Any) -> Iterator[Any]:
    """The table of a prepared cohort, and the next command."""
    from voxlate.training.planning.cohort_facts import MOST_GUESSED

    yield from done.warnings
    if (manifest := done.provenance["manifest"]) and not asked.manifest:
        yield f"Cases and splits are read from {quote_path(manifest)}."
    table = Table("", *COLUMNS, "unit", box=None)
    for name, counts in done.overview["rows"].items():
        table.add_row(name, *map(str, counts.values()), done.units.get(name, ""))
    yield table
    grids = [f"{shape} ({count})" for shape, count in done.overview["grids"].items()]
    yield f"grids: {first_of(grids, 4)}"
    held_out = [
        f"{split} {first_of(patients)} ({len(patients)})"
        for split, patients in done.held_out.items()
        if patients
    ]
    if held_out:
        yield f"held out from training: {'; '.join(held_out)}"
    for name in done.modalities:
        if lacking := [case.case for case in done.cases if name not in case.present]:
            yield f"without {name}: {first_of(lacking)} ({plural(len(lacking), 'case')})."
    is_sound = worst_grade(done.warnings) != "do not trust"
    roles = " --source NAME --target NAME" if len(done.modalities) > MOST_GUESSED else ""
    following = f"Next:  voxlate train auto --data {quote_path(done.folder)} --out RUN{roles}"
    if not is_sound:
        following = "Correct what is not to be trusted, and prepare again: into another --out where cases come, go or get other names."
    yield f"{plural(len(done.cases), 'case')} in {done.folder}. {following}"
    yield from map(Undone, done.provenance["unread"])
    if not is_sound or any(warning.code == "no-pairs" for warning in done.warnings):
        yield Undone()


def _prepared_document(done: "Cohort") -> dict[str, Any]:
    return {
        "out": str(done.folder),
        "cases": {split: len(cases) for split, cases in done.splits.items()},
        "modalities": list(done.modalities),
        "warnings": [warning.table for warning in done.warnings],
        "overview": done.overview,
        "held_out": done.held_out,
    }


@Command(
    """
    prepare COHORT --out PREPARED
    prepare BraTS --preset brats --out PREPARED
    prepare SCANS --pattern '{patient}/{case}_{modality}.nii.gz' --out PREPARED
    """,
    lines=_prepare_lines,
    document=_prepared_document,
    waits=True,
)
def prepare(root: Root, out: Out, *, options: PrepareOptions, progress: Reporter) -> "Cohort":
    """Check a cohort, split it by patient, and convert it for training; the same call resumes.
    \f
    Returns:
        Cohort: The prepared cohort: `cases`, `splits` (names of cases by split), `modalities`, `units` and `warnings`.

    Raises:
        BadInput: no case is found; a patient would be in two splits; the folder has another cohort; or half of the cases cannot
            be prepared (damaged files; scans of different grids, where neither resample nor register is set). Fewer such
            cases are left out: `provenance["failed"]` names them.

    Example:
        >>> import voxlate
        >>> cohort = voxlate.prepare("COHORT", "READY", audit=False, progress=False)
        >>> cohort.modalities, {split: len(cases) for split, cases in cohort.splits.items()}
        (('t1', 't2'), {'train': 5, 'val': 1, 'test': 0})
    """
    from voxlate.checks.cohort_examination import EXAMINATION
    from voxlate.scans.prepare import prepare as prepare_cohort

    return prepare_cohort(
        root,
        out,
        options,
        examination=EXAMINATION,
        progress=progress.count("prepare"),
        say=progress.say,
    )


def _manifest_lines(found: "CohortFiles", asked: Any) -> Iterator[Any]:
    yield from (f"left out: {sentence}" for sentence in found.unclaimed)
    yield from (f"assumed: {sentence}" for sentence in found.guessed)
    table = asked.out or Path(asked.root) / "cases.csv"
    count = plural(len(found.cases), "case")
    how = (
        f"prepare reads it by --manifest {quote_path(asked.out)}"
        if asked.out
        else "prepare reads it"
    )
    yield f"{count} in {table}. Correct the table; {how}."
    if found.questions:
        from voxlate.scans.cohorts.owners import answers

        asked = "; ".join(found.questions)
        yield Undone(
            f"{table}: expected the patient of each case, found {asked}. Fill the column patient; or remove the table, and add {answers(found)}."
        )
    yield from map(Undone, filter(None, [*found.unread, found.unpaired]))


@Command(
    """
    manifest COHORT
    manifest COHORT --out cases.csv
    """,
    lines=_manifest_lines,
)
def manifest(
    root: Annotated[Place, Argument("Folder of scans.", metavar="COHORT")],
    out: Annotated[Place | None, MainOption("Table to write. Default: COHORT/cases.csv.")] = None,
    *,
    options: Layout,
) -> "CohortFiles":
    """Write the table of cases, patients, splits and scans that prepare would read, for corrections.
    \f
    Returns:
        CohortFiles: The cases with their files, and sentences on files that belong to no case or cannot be read.

    Raises:
        BadInput: no case is found, or the table exists.

    Example:
        >>> import voxlate
        >>> found = voxlate.manifest("COHORT", "cases.csv")
        >>> len(found.cases), sorted(found.cases[0].files)
        (6, ['t1', 't2'])
    """
    from voxlate.scans.cohorts.find import find_cohort
    from voxlate.scans.cohorts.manifest import write_manifest

    cohort = find_cohort(root, options)
    write_manifest(Path(out or Path(root) / "cases.csv"), Path(root), cohort.cases)
    return cohort


def _fact_lines(facts: dict[str, Any], _: Any) -> Iterator[Text]:
    width = max(map(len, facts))
    for key, value in facts.items():
        parts = value if isinstance(value, list | tuple) else [value]
        separator = ", "
        if isinstance(value, Mapping):
            parts = [f"{name} {inner}" for name, inner in value.items()]
        elif any(" " in f"{part}" for part in parts):
            separator = f"\n{'':{width}}  "  # sentences stand below each other
        shown = separator.join(map(str, parts)) or "none"
        yield Text.assemble((f"{key:{width}}", "bold"), f"  {shown}")


@Command(
    """
    info scan.nii.gz
    info RUN
    """,
    lines=_fact_lines,
    reads=True,
)
def info(
    path: Annotated[
        Place,
        Argument(
            "Scan, DICOM folder, FOLDER#series, prepared cohort, run or weights.",
            metavar="PATH",
        ),
    ],
    *,
    max_volume: Annotated[str | None, MAX_VOLUME] = None,
) -> dict[str, Any]:
    """Describe a scan (grid, unit, range), a prepared cohort or a model.
    \f
    Returns:
        dict[str, Any]: Facts by name. Of a scan: grid, unit, range, warnings; of a prepared cohort: cases, splits and modalities; of a run:
            source, target, network, steps and calibrations.

    Raises:
        BadInput: the path is no scan, prepared cohort or model; or a volume is larger than max_volume.

    Example:
        >>> import voxlate
        >>> facts = voxlate.info("RUN")
        >>> facts["source"], facts["target"]
        (['t1'], ['t2'])
    """
    from voxlate.commands.api import describe as facts

    allow_volumes(max_volume)
    return facts.describe_path(Path(path))
