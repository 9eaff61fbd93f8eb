"""Commands on scans and cohorts: phantom, prepare, info."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.text import Text
from typer import Argument, Option

from voxlate.cli.app import app, end, err, note, out, say
from voxlate.cli.options import Json, Layout, Modalities, To, with_tables
from voxlate.cli.progress import progress_on
from voxlate.errors import BadInput


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
    from voxlate.phantoms import write_cohort

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
    say(f"{len(folders)} cases in {to}. Next:  voxlate prepare {shlex.quote(str(to))} --out PREPARED")


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
    cohort: Annotated[Path, Argument(help="Folder with a folder for each case, or a manifest (CSV).")],
    to: Annotated[Path | None, Option("--out", help="Folder for what this command makes; none with --dry-run.")] = None,
    *,
    layout: Layout,
    modality: Modalities = None,
    spacing: Annotated[tuple[float, float, float] | None, Option(help="Resample all to x y z in mm.")] = None,
    matrix: Annotated[
        tuple[int, int] | None, Option(help="Resize every slice to so many columns and rows, in place of --spacing.")
    ] = None,
    options: Preparing,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Read and check all scans, show which file becomes what, and write nothing.")
    ] = False,
    every: Annotated[bool, Option("--all", help="With --dry-run: list every file, not the first ones alone.")] = False,
    as_json: Json = False,
) -> None:
    """Check a cohort, split it by patient, and write it in the form that training reads."""
    from voxlate.cli.next_steps import after_prepare
    from voxlate.cli.overview import overview, show
    from voxlate.data.audit import misalignment_lines
    from voxlate.data.manifest import root_and_manifest
    from voxlate.data.prepare import prepare as run
    from voxlate.data.prepared import registration_lines
    from voxlate.data.split import held_out_line, held_out_patients

    spacing_mm = (spacing[2], spacing[1], spacing[0]) if spacing else None
    rows = (matrix[1], matrix[0]) if matrix else None
    if dry_run:
        from voxlate.cli.dry_run import show_plan

        show_plan(cohort, layout, modality, (spacing_mm, rows), vars(options), every, as_json)
        return
    if to is None:
        raise BadInput("--out: expected a folder for the prepared cohort, found none. Add --out PREPARED.")
    _, found = root_and_manifest(cohort, layout.manifest)
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
    splits = {one.patient: one.split for one in ready.cases}
    table = overview(ready.cases, splits, ready.units, masked)
    cases = {name: len(members) for name, members in ready.splits.items()}
    if as_json:
        facts = {"cases": cases, "modalities": list(ready.modalities), "warnings": list(ready.warnings)}
        held_out = held_out_patients(splits)
        print(json.dumps({"out": str(to), **facts, "overview": table, "held_out": held_out}))
        end(ready.provenance["unread"])
        return
    if found is not None and layout.manifest is None:
        say(f"cases and splits from {found}", err, "dim")
    for warning in ready.warnings:
        note(warning)
    show(table)
    if line := held_out_line(splits):
        say(line, err)
    apart = misalignment_lines(ready.cases)
    registered = registration_lines(ready.cases)
    for name, line in (*apart.items(), *registered.items()):
        say(f"{name} {line}.", err)
    if registered:
        say(f"Look at the overlays:  voxlate report {to}", err)
    counts = ", ".join(f"{count} {name}" for name, count in cases.items())
    say(f"{to}: {counts} cases; modalities {', '.join(ready.modalities)}.")
    try:
        say(f"Next:  voxlate {after_prepare(to)}")
    except BadInput as error:
        note(f"no training can be planned: {error}")
    end(ready.provenance["unread"])


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
        lines = _in_words(value)
        out.print(Text.assemble((f"{key:{width}}", "bold"), f"  {lines[0]}"), soft_wrap=True)
        for line in lines[1:]:
            out.print(Text(f"{'':{width}}  {line}"), soft_wrap=True)


def _in_words(value: Any) -> list[str]:
    """A fact in lines for people: numbers beside each other, sentences below each other."""
    if isinstance(value, dict):
        return [", ".join(f"{name} {one}" for name, one in value.items()) or "none"]
    if isinstance(value, list | tuple):
        if any(isinstance(one, str) and " " in one for one in value):
            return [str(one) for one in value]
        return [", ".join("none" if one is None else str(one) for one in value) or "none"]
    return ["none" if value is None else str(value)]
