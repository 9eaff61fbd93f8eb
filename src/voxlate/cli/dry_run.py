"""What `prepare --dry-run` shows: what would be prepared, which file becomes what, and what would be refused."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from voxlate.cli.app import end, err, note, say
from voxlate.cli.options import Layout
from voxlate.cli.overview import overview, show, show_files
from voxlate.cli.progress import progress_on
from voxlate.data.align import Preparation
from voxlate.data.checking import check_cases
from voxlate.data.find import find_cohort, root_and_manifest
from voxlate.data.prepare import complete
from voxlate.data.slice_lists import known_patients
from voxlate.data.split import held_out_line, held_out_patients, small_cohort_note, split_patients

OF_PREPARATION = ("resample", "register", "fixed", "align", "mask", "mask_from")


def show_plan(
    cohort: Path,
    layout: Layout,
    modalities: Sequence[str] | None,
    sizes: tuple[tuple[float, float, float] | None, tuple[int, int] | None],
    options: Mapping[str, Any],
    every: bool,
    as_json: bool,
) -> None:
    """Read and check all scans as `prepare` would, and show it.

    sizes: of voxels in mm [D, H, W], and numbers of pixels [H, W]; every: list every file.
    """
    root, _ = root_and_manifest(cohort, layout.manifest)
    plan = find_cohort(cohort, modalities=modalities, **vars(layout))
    known_patients(plan.cases, root)
    splits = split_patients([(one.patient, one.split) for one in plan.cases], options["seed"], options["shares"])
    spacing_mm, matrix = sizes
    asked = Preparation(spacing_mm, matrix=matrix, **{name: options[name] for name in OF_PREPARATION})
    preparation = complete(asked, plan.cases)
    with progress_on(err) as bars:
        checked = check_cases(plan.cases, preparation, lambda done, total, _: bars("check", done, total))
    units = {one.name: one.unit for one in checked.files if one.unit}
    table = overview(plan.cases, splits, units, {one.case for one in plan.cases if one.mask})
    if as_json:
        said = {"left_out": plan.unclaimed, "unread": plan.unread, "guessed": plan.guessed}
        found = {"fixed": preparation.fixed, "files": [vars(one) for one in checked.files], "lost": checked.lost}
        print(
            json.dumps({**table, **said, **found, "held_out": held_out_patients(splits), "problems": checked.problems})
        )
    else:
        show_files(checked.files, root, every)
        show(table, plan)
        if line := held_out_line(splits):
            say(line, err)
        if options["shares"] is None and plan.cases[0].split is None and (sentence := small_cohort_note(splits)):
            note(sentence)
        if preparation.fixed is not None:
            say(f"grid of each case: that of its {preparation.fixed}", err)
        for sentence in checked.lost:
            note(sentence)
    end([*plan.unread, *checked.problems])
