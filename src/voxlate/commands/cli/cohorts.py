"""Commands on scans and cohorts: phantom, prepare, info."""

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

from rich.text import Text
from typer import Argument

from voxlate.anatomy.options import PhantomOptions
from voxlate.base.errors import BadInput, first_of, plural
from voxlate.base.options.option import MAIN, OUTPUT, Option
from voxlate.commands.api.console import err, note, out, say
from voxlate.commands.cli.app import end
from voxlate.commands.cli.messages import Verbose, keep_messages
from voxlate.commands.cli.options import Json, To, command
from voxlate.scans.options.layout import MAX_VOLUME, Layout
from voxlate.scans.options.prepare import PrepareOptions

MOST_ALIGNED = 2  # lines on the alignment of scans
MOST_ROWS = 12  # files of a dry run; --all shows the others


@command(
    "phantom --out COHORT --cases 24 --size 96 96 48",
    "phantom --labels MAPS --tissues synthseg --spacing 1 1 1 --out COHORT",
)
def phantom(to: To, options: PhantomOptions) -> None:
    """Write a cohort of synthetic heads, or of bodies from label maps, in MR, CT, CTA, TOF, SWI and perfusion."""
    from voxlate.commands.api.cohorts import phantom as run

    folders = run(to, options)
    count = plural(len(folders), "case")
    say(f"{count} in {to}. Next:  voxlate prepare {shlex.quote(str(to))} --out PREPARED")


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
    options: PrepareOptions,
    to: Annotated[
        Path | None, Option("Output folder. Not needed with --dry-run.", flag="--out", panel=MAIN)
    ] = None,
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
    from voxlate.commands.api.cohorts import prepare as run
    from voxlate.commands.api.cohorts import summarise
    from voxlate.commands.api.progress import Reporter

    if dry_run:
        _show_survey(cohort, options, None if every else MOST_ROWS, as_json)
        return
    if to is None:
        raise BadInput(
            "--out: expected a folder for the prepared cohort, found none. Add --out PREPARED."
        )
    with keep_messages(to, "prepare", verbose) as take:
        prepared = run(cohort, to, options, progress=Reporter(say=take))
        for warning in prepared.warnings if not as_json else ():
            take(warning)
    summary = summarise(prepared, cohort, options)
    if as_json:
        facts = {
            "out": str(to),
            "cases": {split: len(cases) for split, cases in prepared.splits.items()},
            "modalities": list(prepared.modalities),
            "warnings": [warning.table for warning in prepared.warnings],
            "overview": summary.table,
            "held_out": summary.held_out,
        }
        print(json.dumps(facts))
    else:
        count = plural(len(prepared.cases), "case")
        _show_prepared(summary, f"{count} in {to}", to, None if verbose else MOST_ALIGNED)
    end(prepared.provenance["unread"])


def _show_prepared(summary: Any, cases: str, to: Path, most: int | None) -> None:
    """Show the table of a prepared cohort, its alignment in at most so many lines, and the next command."""
    from voxlate.commands.cli.overview import by_value, show

    if summary.manifest is not None:
        say(f"Cases and splits are read from {summary.manifest}.", err, "dim")
    show(summary.table)
    if summary.held_out_line:
        say(summary.held_out_line, err)
    lines = by_value(summary.lines)
    for names, line in lines[:most]:
        say(f"{first_of(names)} {line}.", err)
    if more := len(lines[most:] if most else []):
        say(f"{plural(more, 'further line')}, of scans that lie nearer: see --verbose.", err, "dim")
    if summary.registered:
        say(f"Check the overlays:  voxlate report {to}", err)
    if summary.why_not:
        note(f"no training can be planned: {summary.why_not}")
    else:
        say(f"{cases}. Next:  voxlate {summary.following}")


def _show_survey(cohort: Path, options: PrepareOptions, most: int | None, as_json: bool) -> None:
    """Show what `prepare` would do: each file, the cohort, and the problems. most: number of files that are listed."""
    from voxlate.commands.api.cohorts import survey
    from voxlate.commands.cli.overview import show, show_files
    from voxlate.scans.cohorts.split import describe_held_out

    found = survey(cohort, options)
    if as_json:
        print(json.dumps(found.facts))
    else:
        show_files(found.files, found.root, most)
        show(found.table)
        _say_notes(found.found)
        if sentence := describe_held_out(found.splits):
            say(sentence, err)
        for said in found.small:
            note(said)
        if found.preparation.fixed is not None:
            say(f"The grid of each case is that of its {found.preparation.fixed}.", err)
        for said in found.lost:
            note(said)
        say("Outliers, copies and registration were not checked: prepare --out does that.", err)
    end([*found.found.unread, *found.problems])


@command("manifest COHORT", "manifest COHORT --out cases.csv")
def manifest(
    cohort: Annotated[Path, Argument(metavar="COHORT", help="Folder of scans.")],
    options: Layout,
    to: Annotated[
        Path | None, Option("Table to write. Default: COHORT/cases.csv.", flag="--out", panel=MAIN)
    ] = None,
) -> None:
    """Write the table of cases, patients, splits and scans that prepare would read, for corrections."""
    from voxlate.commands.api.cohorts import manifest as run

    found = run(cohort, to, options)
    _say_notes(found)
    say(f"{plural(len(found.cases), 'case')}. Correct the table; prepare reads COHORT/cases.csv.")
    end(found.unread)


def _say_notes(found: Any) -> None:
    for sentence in found.unclaimed:
        say(f"left out: {sentence}", err)
    for sentence in found.guessed:
        say(f"assumed: {sentence}", err)


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
    from voxlate.commands.api.facts import info as describe

    facts = describe(path, max_volume=max_volume)
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
