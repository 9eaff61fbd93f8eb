"""The cases of a cohort with their splits, and how they are to be prepared."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from voxlate.base.errors import BadInput
from voxlate.base.messages import Message
from voxlate.scans.cases.align import Preparation
from voxlate.scans.cohorts.case_files import CaseFiles, CohortFiles, as_names
from voxlate.scans.cohorts.files_below import refuse_synthetic
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.cohorts.owners import require_patients
from voxlate.scans.cohorts.split import check_modalities, check_size, split_patients
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.mask import clearest
from voxlate.scans.images.units import unit_of
from voxlate.scans.prepare_options import PrepareOptions


@dataclass(frozen=True)
class Inputs:
    """A cohort that was found, and how it is prepared.

    root: its folder; manifest: where it has one; splits: by patient; preparation: with the modalities that
    the options leave open; small: messages on too few patients, or modalities that a split lacks.
    """

    root: Path
    manifest: Path | None
    found: CohortFiles
    splits: dict[str, str]
    preparation: Preparation
    small: list[Message]


def read_inputs(cohort: Path | str, options: PrepareOptions) -> Inputs:
    """Find the cases of a cohort, split them and choose their preparation; raises BadInput where no case is found."""
    found = find_cohort(cohort, options, as_names(options.modalities) or None)
    cases = found.cases
    require_patients(found)
    if found.ignored:  # a split of our own could train on the user's test cases
        raise BadInput(found.ignored)
    refuse_synthetic(cases)
    splits = split_patients(cases, options.seed, options.shares)
    by_number = not options.shares and cases[0].split is None
    small = (check_size(splits) if by_number else []) + check_modalities(cases, splits)
    return Inputs(
        found.root, found.manifest, found, dict(splits), _preparation(options, cases), small
    )


def _preparation(options: PrepareOptions, cases: Sequence[CaseFiles]) -> Preparation:
    """How cases are prepared, with the modalities that the options leave open: the fixed one, and that of the brain."""
    asked = Preparation(
        **{field.name: getattr(options, field.name) for field in fields(Preparation)}
    )
    fixed = asked.fixed
    mask_from = asked.mask_from
    first = cases[0].files
    shared = set(first).intersection(*(case.files for case in cases))
    everywhere = [name for name in first if name in shared]
    best = clearest({name: unit_of(name) for name in everywhere or first})
    if asked.align is not None:
        fixed = fixed or best
    elif asked.resample or asked.register is not None:
        fixed = fixed or _finest(cases, everywhere)
    if asked.mask == "brain":
        mask_from = mask_from or best
    return replace(asked, fixed=fixed, mask_from=mask_from)


def _finest(cases: Sequence[CaseFiles], names: Sequence[str]) -> str | None:
    """The modality on whose grid resampling loses least: the smallest distance of slices, then the smallest voxels.

    Only these names are compared, in the first, middle and last case. None where there are no names.
    """
    losses = {}
    compared = {case.case: case for case in (cases[0], cases[len(cases) // 2], cases[-1])}
    for name in names if len(names) > 1 else ():
        sides = [read_volume(case.files[name], name).grid.spacing_mm for case in compared.values()]
        widest = max(map(max, sides))
        losses[name] = round(widest, 2), round(max(map(math.prod, sides)), 2)
    return min(names, key=losses.__getitem__) if losses else next(iter(names), None)
