"""Commands on scans and cohorts: phantom, prepare, info."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from rich.text import Text
from typer import Argument, Option

from voxlate.cli.app import app, end, err, note, out, say
from voxlate.cli.options import Json, Layout, Modalities, To, with_tables
from voxlate.cli.progress import progress_on


@app.command(epilog="Example:  voxlate phantom --out COHORT --cases 24 --size 96 96 48")
def phantom(
    to: To,
    cases: Annotated[int, Option(min=1, help="How many heads.")] = 24,
    size: Annotated[tuple[int, int, int], Option(help="Voxels in x, y and z.")] = (96, 96, 48),
    seed: Annotated[int, Option(min=0, help="Other seeds give other heads.")] = 0,
    lesion: Annotated[Literal["none", "tumour", "stroke", "mixed"], Option(help="What they have.")] = "mixed",
    modality: Modalities = None,
    stripped: Annotated[bool, Option("--stripped", help="The brain alone, as after skull stripping.")] = False,
) -> None:
    """Make a cohort of head phantoms: one anatomy in MR, CT, CTA, TOF, SWI and perfusion."""
    from voxlate.phantom import write_cohort

    with progress_on(err) as bars:
        folders = write_cohort(
            to,
            cases,
            size,
            seed=seed,
            lesion=lesion,
            modalities=modality,
            stripped=stripped,
            progress=lambda done, total: bars("phantom", done, total),
        )
    say(f"{len(folders)} cases in {to}. Next:  voxlate prepare {to} --out PREPARED")


@dataclass(frozen=True)
class Preparing:
    """Options of `prepare` as voxlate.prepare takes them."""

    resample: Annotated[bool, Option("--resample", help="Resample a case's scans to the finest of their grids.")] = (
        False
    )
    register: Annotated[
        Literal["rigid", "affine", "bspline", "ants"] | None,
        Option(help="Align a case's scans by their content; the transforms are kept."),
    ] = None
    fixed: Annotated[str | None, Option(help="The modality whose grid the others are resampled to.")] = None
    align: Annotated[Literal["midline"] | None, Option(help="Move heads until left and right mirror each other.")] = (
        None
    )
    mask: Annotated[Literal["body", "brain"], Option(help="What counts in a case that has no mask file.")] = "body"
    mask_from: Annotated[
        str | None, Option(help="The scan in which the brain is found; else a plain CT, if there is one.")
    ] = None
    shares: Annotated[
        tuple[float, float, float] | None,
        Option(
            help="Shares of patients for train, val and test, or their numbers (62 13 14). Unset: 0.7 0.15 0.15, and "
            "no test patients where there are fewer than 10. Splits of a manifest win.",
            show_default=False,
        ),
    ] = None
    seed: Annotated[int, Option(min=0, help="Of the split by patient, where no manifest gives one.")] = 0
    audit: Annotated[
        bool, Option("--audit/--no-audit", help="Estimate how far the scans of a case lie from each other.")
    ] = True
    audit_cases: Annotated[
        int | None, Option(min=1, help="In so many cases; else in all where there are few, in a tenth of many.")
    ] = None


@app.command(
    epilog="Examples:  voxlate prepare COHORT --out PREPARED    voxlate prepare BraTS --preset brats --out PREPARED    "
    "voxlate prepare SCANS --pattern '{patient}/{case}_{modality}.nii.gz' --out PREPARED"
)
@with_tables
def prepare(
    cohort: Annotated[Path, Argument(help="Folder with a folder for each case.")],
    to: To,
    layout: Layout,
    modality: Modalities = None,
    spacing: Annotated[tuple[float, float, float] | None, Option(help="Resample all to x y z in mm.")] = None,
    matrix: Annotated[
        tuple[int, int] | None, Option(help="Resize every slice to so many columns and rows, in place of --spacing.")
    ] = None,
    *,
    options: Preparing,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Read and check all scans, show which file becomes what, and write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a cohort, split it by patient, and write it in the form that training reads."""
    from voxlate.cli.overview import overview, show
    from voxlate.data.audit import misalignment_lines
    from voxlate.data.manifest import manifest_in
    from voxlate.data.prepare import prepare as run
    from voxlate.data.prepared import registration_lines

    found = manifest_in(cohort) if layout.manifest is None and cohort.is_dir() else None
    spacing_mm = (spacing[2], spacing[1], spacing[0]) if spacing else None
    rows = (matrix[1], matrix[0]) if matrix else None
    if dry_run:
        _show_plan(cohort, layout, modality, spacing_mm, rows, options, as_json)
        return
    with progress_on(err) as bars:
        ready = run(
            cohort,
            to,
            modalities=modality,
            **vars(layout),
            spacing_mm=spacing_mm,
            matrix=rows,
            **vars(options),
            progress=lambda done, total, _: bars("prepare", done, total),
            say=note,
        )
    masked = {one.case for one in ready.cases if ready.header(one.case).has_mask_file}
    table = overview(ready.cases, {one.patient: one.split for one in ready.cases}, ready.units, masked)
    cases = {name: len(members) for name, members in ready.splits.items()}
    if as_json:
        facts = {"cases": cases, "modalities": list(ready.modalities), "warnings": list(ready.warnings)}
        print(json.dumps({"out": str(to), **facts, "overview": table}))
        end(ready.made["unread"])
        return
    if found:
        say(f"cases and splits from {found}", err, "dim")
    for warning in ready.warnings:
        note(warning)
    show(table)
    apart = misalignment_lines(ready.cases)
    registered = registration_lines(ready.cases)
    for name, line in (*apart.items(), *registered.items()):
        say(f"{name} {line}.", err)
    if registered:
        say(f"Look at the overlays:  voxlate report {to}", err)
    counts = ", ".join(f"{count} {name}" for name, count in cases.items())
    say(f"{to}: {counts} cases; modalities {', '.join(ready.modalities)}.")
    say(f"Next:  voxlate train auto --data {to} --out RUN")
    end(ready.made["unread"])


def _show_plan(
    cohort: Path,
    layout: Layout,
    modality: list[str] | None,
    spacing_mm: tuple[float, float, float] | None,
    matrix: tuple[int, int] | None,
    options: Preparing,
    as_json: bool,
) -> None:
    """What would be prepared, by which file becomes what; scans are read and checked as they would be."""
    from voxlate.cli.overview import overview, show, show_files
    from voxlate.data.align import Preparation
    from voxlate.data.checking import check_cases
    from voxlate.data.find import find_cohort
    from voxlate.data.lists import known_patients
    from voxlate.data.prepare import complete
    from voxlate.data.split import small_cohort_note, split_patients

    plan = find_cohort(cohort, modalities=modality, **vars(layout))
    known_patients(plan.cases, cohort)
    splits = split_patients([(one.patient, one.split) for one in plan.cases], options.seed, options.shares)
    table = overview(plan.cases, splits, {}, {one.case for one in plan.cases if one.mask})
    asked = Preparation(
        spacing_mm,
        options.resample,
        options.register,
        options.fixed,
        options.align,
        options.mask,
        options.mask_from,
        matrix,
    )
    preparation = complete(asked, plan.cases)
    with progress_on(err) as bars:
        checked = check_cases(plan.cases, preparation, lambda done, total, _: bars("check", done, total))
    if as_json:
        said = {"left_out": plan.unclaimed, "unread": plan.unread, "guessed": plan.guessed}
        found = {"fixed": preparation.fixed, "files": [vars(one) for one in checked.seen]}
        print(json.dumps({**table, **said, **found, "problems": checked.problems}))
    else:
        show_files(checked.seen, cohort)
        show(table, plan)
        if options.shares is None and plan.cases[0].split is None and (sentence := small_cohort_note(splits)):
            note(sentence)
        if preparation.fixed is not None:
            say(f"grid of each case: that of its {preparation.fixed}", err)
    end([*plan.unread, *checked.problems])


@app.command(epilog="Examples:  voxlate info scan.nii.gz    voxlate info RUN")
def info(
    path: Annotated[
        Path, Argument(help="A scan, a DICOM folder or FOLDER#series, a cohort, a synthesis, a run, or weights.")
    ],
    as_json: Json = False,
) -> None:
    """Describe a file or folder: grid, unit and range of a scan; title, data and training of a model."""
    from voxlate.cli.info import describe_path

    facts = describe_path(path)
    if as_json:
        print(json.dumps(facts))
        return
    width = max(len(key) for key in facts)
    for key, value in facts.items():
        out.print(Text.assemble((f"{key:{width}}", "bold"), f"  {value}"))
