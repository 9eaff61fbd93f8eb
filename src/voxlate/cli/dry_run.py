"""`prepare --dry-run`: shows the cohort that would be prepared, the use of each file, and the problems."""

import json
from pathlib import Path

from voxlate.cli.app import end, err, note, say
from voxlate.cli.overview import overview, show, show_files
from voxlate.cli.progress import progress_on
from voxlate.data.checking import check_cases
from voxlate.data.find import find_cohort, root_and_manifest
from voxlate.data.options import PrepareOptions
from voxlate.data.prepare import preparation_of
from voxlate.data.slice_lists import known_patients
from voxlate.data.split import held_out_line, held_out_patients, small_cohort_note, split_patients


def show_preparation(cohort: Path, options: PrepareOptions, every: bool, as_json: bool) -> None:
    """Read and check all scans as `prepare` would, and show the result. every: list every file."""
    root, _ = root_and_manifest(cohort, options.manifest)
    found = find_cohort(cohort, modalities=options.modalities, **options.layout)
    known_patients(found.cases, root)
    splits = split_patients(
        [(case.patient, case.split) for case in found.cases], options.seed, options.shares
    )
    preparation = preparation_of(options, found.cases)
    with progress_on(err) as bars:
        checked = check_cases(
            found.cases, preparation, lambda done, total, _: bars("check", done, total)
        )
    units = {file.name: file.unit for file in checked.files if file.unit}
    table = overview(found.cases, splits, units, {case.case for case in found.cases if case.mask})
    if as_json:
        facts = {
            **table,
            "left_out": found.unclaimed,
            "unread": found.unread,
            "guessed": found.guessed,
            "fixed": preparation.fixed,
            "files": [vars(file) for file in checked.files],
            "lost": checked.lost,
            "held_out": held_out_patients(splits),
            "problems": checked.problems,
        }
        print(json.dumps(facts))
    else:
        show_files(checked.files, root, every)
        show(table, found)
        if line := held_out_line(splits):
            say(line, err)
        if (
            options.shares is None
            and found.cases[0].split is None
            and (sentence := small_cohort_note(splits))
        ):
            note(sentence)
        if preparation.fixed is not None:
            say(f"The grid of each case is that of its {preparation.fixed}.", err)
        for sentence in checked.lost:
            note(sentence)
    end([*found.unread, *checked.problems])
