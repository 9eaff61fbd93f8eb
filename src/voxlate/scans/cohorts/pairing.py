"""Cohorts in which no case has two modalities, and the pattern of paths that would join them."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from voxlate.base.groups import grouped
from voxlate.scans.cohorts.case_files import CaseFiles, CohortFiles
from voxlate.scans.cohorts.patterns import path_expression
from voxlate.scans.formats.io import without_ending


def state_pairs(cases: Sequence[CaseFiles], found: CohortFiles, root: Path) -> None:
    """State in `found.unpaired` that each modality is in cases of its own, where the cohort has several."""
    found.unpaired = ""
    scans = grouped(
        (name, os.path.relpath(path, root).replace(os.sep, "/"))
        for case in cases
        for name, path in case.files.items()
    )
    is_repeated = any(len(paths) > 1 for paths in scans.values())
    if len(scans) < 2 or not is_repeated or any(len(case.files) > 1 for case in cases):
        return
    shown = ", ".join(f"{name} in {paths[0]}" for name, paths in scans.items())
    pattern = joining_pattern([*scans.values()])
    advice = (
        f"Pass --pattern '{pattern}'"
        if pattern
        else "Pass --pattern with {case} where the names of a pair are equal"
    )
    found.unpaired = f"Expected cases with two modalities, found each modality in cases of its own ({shown}). {advice}, or give the scans of a pair one case in the table of voxlate manifest."


def joining_pattern(paths: Sequence[Sequence[str]]) -> str:
    """A pattern under which scans of several modalities have the same cases: their folders differ, their last numbers agree; "" for none.

    paths: of each modality.
    """
    parts = [[*without_ending(of_modality[0]).split("/")] for of_modality in paths]
    if len({*map(len, parts)}) > 1:
        return ""
    levels = []
    for names in zip(*(one[:-1] for one in parts)):
        differs = "*" if "{modality}" in levels else "{modality}"
        levels.append(names[0] if len({*names}) == 1 else differs)
    befores = [re.split(r"\d+\D*$", one[-1])[0] for one in parts]
    afters = {re.split(r"\d+", one[-1])[-1] for one in parts}
    before = befores[0] if len({*befores}) == 1 else f"*{befores[0][-1:]}"
    after = afters.pop() if len(afters) == 1 else "*"
    pattern = "/".join([*levels, f"{before}{{case}}{after}"])
    if "{modality}" not in levels:
        return ""
    expression = path_expression(pattern)
    cases = []
    for of_modality in paths:
        matches = [expression.fullmatch(without_ending(path)) for path in of_modality]
        cases.append({match["case"] for match in matches if match})
    return pattern if set.intersection(*cases) else ""
