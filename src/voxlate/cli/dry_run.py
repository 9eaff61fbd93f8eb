"""`prepare --dry-run`: shows the cohort that would be prepared, the use of each file, and the problems."""

import json
from pathlib import Path

from voxlate.cases.survey import survey
from voxlate.cli.app import end, err, note, say
from voxlate.cli.overview import show, show_files
from voxlate.cli.progress import progress_on
from voxlate.cohorts.split import describe_held_out
from voxlate.options.prepare import PrepareOptions


def show_preparation(cohort: Path, options: PrepareOptions, every: bool, as_json: bool) -> None:
    """Check units and grids of all scans as `prepare` would, and show the result. every: list every file."""
    with progress_on(err) as bars:
        seen = survey(cohort, options, lambda done, total, _: bars("check", done, total))
    if as_json:
        print(json.dumps(seen.facts))
    else:
        show_files(seen.checked.files, seen.root, every)
        show(seen.table, seen.found)
        if line := describe_held_out(seen.splits):
            say(line, err)
        for one in seen.small:
            note(one)
        if seen.preparation.fixed is not None:
            say(f"The grid of each case is that of its {seen.preparation.fixed}.", err)
        for one in seen.checked.lost:
            note(one)
        say("Outliers, copies and registration were not checked: prepare --out does that.", err)
    end([*seen.found.unread, *seen.checked.problems])
