"""Commands on scans and cohorts: phantom, prepare, info."""

import json
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.text import Text
from typer import Argument

from voxlate.cli.app import end, err, note, out, say
from voxlate.cli.messages import Verbose, keep_messages
from voxlate.cli.options import Json, To, command
from voxlate.cli.progress import progress_on
from voxlate.executors.choose import workers_of
from voxlate.options.executors import ExecutorOptions
from voxlate.options.layout import MAX_VOLUME, allow_volumes
from voxlate.options.option import MAIN, OUTPUT, Option
from voxlate.options.prepare import PrepareOptions
from voxlate.system.errors import BadInput, first_of, plural

MOST_ALIGNED = 2  # lines on the alignment of scans


@command("phantom --out COHORT --cases 24 --size 96 96 48")
def phantom(
    to: To,
    cases: Annotated[int, Option("Number of heads.", panel=MAIN, least=1)] = 24,
    size: Annotated[
        tuple[int, int, int], Option("Number of voxels in x, y and z.", panel=MAIN, metavar="X Y Z")
    ] = (
        96,
        96,
        48,
    ),
    modality: Annotated[
        list[str] | None,
        Option(
            "Modality that is written, such as t1, ct, a map of a tissue parameter such as t1_map, or maps for all of these. Repeatable. Default: all images and no map.",
            panel=MAIN,
            metavar="NAME",
        ),
    ] = None,
    lesion: Annotated[
        Literal["none", "tumour", "stroke", "mixed"],
        Option("Lesion of the heads: none, tumour, stroke or mixed.", panel=MAIN),
    ] = "mixed",
    stripped: Annotated[bool, Option("Write the brain alone, as after skull stripping.")] = False,
    anatomy: Annotated[
        int,
        Option(
            "Anatomy of the heads: 1 plain; 2 with skull base, sinuses, jaw and neck, all ages and many diseases.",
            panel=MAIN,
            least=1,
            most=2,
        ),
    ] = 1,
    seed: Annotated[int, Option("Random seed of the heads.", least=0)] = 0,
) -> None:
    """Write a cohort of synthetic heads in MR, CT, CTA, TOF, SWI and perfusion."""
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
            anatomy=anatomy,
            progress=lambda done, total: bars("phantom", done, total),
        )
    say(
        f"{plural(len(folders), 'case')} in {to}. Next:  voxlate prepare {shlex.quote(str(to))} --out PREPARED"
    )


@command(
    "prepare COHORT --out PREPARED",
    "prepare BraTS --preset brats --out PREPARED",
    "prepare SCANS --pattern '{patient}/{case}_{modality}.nii.gz' --out PREPARED",
)
def prepare(
    cohort: Annotated[
        Path,
        Argument(metavar="COHORT", help="Folder with one folder per case, or a manifest (CSV)."),
    ],
    to: Annotated[
        Path | None, Option("Output folder. Not needed with --dry-run.", flag="--out", panel=MAIN)
    ] = None,
    *,
    options: PrepareOptions,
    by: ExecutorOptions,
    dry_run: Annotated[
        bool,
        Option(
            "Check units and grids of all scans, list the resulting files, and write nothing. Outliers and copies are not looked for.",
            panel=MAIN,
        ),
    ] = False,
    every: Annotated[
        bool,
        Option(
            "List all files of a --dry-run instead of the first ones.", flag="--all", panel=OUTPUT
        ),
    ] = False,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Check a cohort, split it by patient, and convert it for training."""
    from voxlate.cases.audit import misalignment_lines
    from voxlate.cases.prepare import prepare as run
    from voxlate.cases.prepared import registration_lines
    from voxlate.cases.survey import prepared_overview
    from voxlate.cli.next_steps import after_prepare
    from voxlate.cli.overview import by_value, show
    from voxlate.cohorts.manifest import root_and_manifest
    from voxlate.cohorts.split import describe_held_out, list_held_out

    if dry_run:
        from voxlate.cli.dry_run import show_preparation

        show_preparation(cohort, options, every, as_json)
        return
    if to is None:
        raise BadInput(
            "--out: expected a folder for the prepared cohort, found none. Add --out PREPARED."
        )
    _, manifest = root_and_manifest(cohort, options.manifest)
    with keep_messages(to, "prepare", verbose) as say_one, progress_on(err) as bars:
        prepared = run(
            cohort,
            to,
            progress=lambda done, total, _: bars("prepare", done, total),
            say=say_one,
            **workers_of(by),
            **vars(options),
        )
        for one in prepared.warnings if not as_json else ():
            say_one(one)
    splits = {entry.patient: entry.split for entry in prepared.cases}
    table = prepared_overview(prepared)
    counts = {split: len(cases) for split, cases in prepared.splits.items()}
    if as_json:
        facts = {
            "cases": counts,
            "modalities": list(prepared.modalities),
            "warnings": [one.stated for one in prepared.warnings],
        }
        held_out = list_held_out(splits)
        print(json.dumps({"out": str(to), **facts, "overview": table, "held_out": held_out}))
        end(prepared.provenance["unread"])
        return
    if manifest is not None and options.manifest is None:
        say(f"Cases and splits are read from {manifest}.", err, "dim")
    show(table)
    if line := describe_held_out(splits):
        say(line, err)
    registered = registration_lines(prepared.cases)
    lines = {**misalignment_lines(prepared.cases), **registered}
    for names, line in by_value(lines)[: None if verbose else MOST_ALIGNED]:
        say(f"{first_of(names)} {line}.", err)
    if registered:
        say(f"Check the overlays:  voxlate report {to}", err)
    try:
        say(f"{plural(len(prepared.cases), 'case')} in {to}. Next:  voxlate {after_prepare(to)}")
    except BadInput as error:
        note(f"no training can be planned: {error}")
    end(prepared.provenance["unread"])


@command("info scan.nii.gz", "info RUN")
def info(
    path: Annotated[
        Path,
        Argument(
            metavar="PATH",
            help="Scan, DICOM folder or FOLDER#series, cohort, output of synth, run or weights.",
        ),
    ],
    max_volume: Annotated[str | None, MAX_VOLUME] = None,
    as_json: Json = False,
) -> None:
    """Describe a scan (grid, unit, range), a cohort or a model."""
    from voxlate.cli.info import describe_path

    if max_volume is not None:
        allow_volumes(max_volume)
    facts = describe_path(path)
    if as_json:
        print(json.dumps(facts))
        return
    width = max(len(key) for key in facts)
    for key, value in facts.items():
        lines = _lines(value)
        out.print(Text.assemble((f"{key:{width}}", "bold"), f"  {lines[0]}"), soft_wrap=True)
        for line in lines[1:]:
            out.print(Text(f"{'':{width}}  {line}"), soft_wrap=True)


def _lines(fact: Any) -> list[str]:
    """The lines that show a fact: numbers and names beside each other, sentences below each other."""
    if isinstance(fact, dict):
        return [", ".join(f"{name} {value}" for name, value in fact.items()) or "none"]
    if isinstance(fact, list | tuple):
        if any(isinstance(value, str) and " " in value for value in fact):
            return [str(value) for value in fact]
        return [", ".join("none" if value is None else str(value) for value in fact) or "none"]
    return ["none" if fact is None else str(fact)]
