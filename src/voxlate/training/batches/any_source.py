"""A cohort in which any of several scans is the source: each scan of a case is the one source of a case of its own.

Hence an epoch shows each slice once with each scan that the case has, and validation, naive baselines and statistics
know these cases as any others. Which scan an item shows depends on its number alone, not on workers.
"""

from collections.abc import Sequence
from dataclasses import replace

from voxlate.base.errors import BadInput
from voxlate.scans.cases.prepared import CaseEntry, Cohort, OneScan


def with_any_source(cohort: Cohort, scans: Sequence[str], source: str) -> Cohort:
    """The cohort with each of these scans as the source of a case of its own.

    Cases that have the source already, drawn from maps for instance, or none of the scans, stay as they are. Raises
    BadInput where the scans are no MR, or of several units, and where no case has any of them or the source.
    """
    unit = _unit_of(cohort, (*scans, source))
    cases = list[CaseEntry]()
    scans_of = dict[str, OneScan]()
    for entry in cohort.cases:
        having = (
            [] if source in entry.present else [name for name in scans if name in entry.present]
        )
        if not having:
            cases.append(entry)
        for name in having:
            one = OneScan(entry.case, name, source)
            scans_of[one.name] = one
            changed = replace(
                entry,
                case=one.name,
                present=[*one.renamed(dict.fromkeys(entry.present))],
                registered=one.renamed(entry.registered),
                misaligned=one.renamed(entry.misaligned),
            )
            cases.append(changed)
    return replace(
        cohort,
        cases=tuple(cases),
        modalities=tuple(dict.fromkeys((*cohort.modalities, source))),
        units=cohort.units | {source: unit},
        scans_of=scans_of,
    )


def _unit_of(cohort: Cohort, names: Sequence[str]) -> str:
    """The one unit of the scans, which is arbitrary."""
    units = {name: cohort.units[name] for name in names if name in cohort.units}
    if not units:
        raise BadInput(
            f"{cohort.folder}: expected scans of {' or '.join(names)} (data.any_source), found {', '.join(cohort.modalities)} in the cohort. Name some of these."
        )
    unit, *others = {*units.values()}
    if others or unit not in ("a.u.", "grey"):
        found = ", ".join(f"{name} in {unit}" for name, unit in units.items())
        raise BadInput(
            f"{cohort.folder}: expected MR contrasts of one arbitrary unit, any of which is the source, found {found}. Name others."
        )
    return unit
