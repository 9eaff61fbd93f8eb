"""Which table of a cohort's folder is its manifest, and the paths and cases that such a table leaves to be named."""

import posixpath
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from voxlate.base.errors import BadInput
from voxlate.base.groups import grouped
from voxlate.scans.cohorts.case_files import FOLD, is_known
from voxlate.scans.cohorts.manifest import (
    COLUMNS,
    OWN_NAMES,
    TABLES,
    Table,
    case_in,
    modality_in,
    names_scan,
    places,
    read_table,
    split_in,
)
from voxlate.scans.cohorts.path_names import read_names
from voxlate.scans.formats.io import without_ending


def root_and_manifest(
    root: Path | str, manifest: Path | str | None = None
) -> tuple[Path, Path | None, dict[Path, Table]]:
    """The folder of a cohort, its manifest (None: there is none), and the tables that were read to find it.

    `root` may itself be the manifest. By default that is a file of the folder with one of OWN_NAMES, or the only table in it,
    or else in a folder below it, that lists files by modality; tables of one split each are one.
    """
    root = Path(root)
    place = None if manifest is None else Path(manifest)
    if root.suffix.lower() in TABLES and not root.is_dir():
        if place is not None:
            raise BadInput(
                f"{root}: expected one manifest, found also {manifest} (--manifest). Give one of the two."
            )
        root, place = root.parent, root
    place = place or next((root / name for name in OWN_NAMES if (root / name).is_file()), None)
    if place is not None:
        table = read_table(place) if place.is_file() else None
        return root, place, {place: _as_manifest(table, root) or table} if table else {}
    tables = dict[Path, Table]()
    for level in ("", "*/"):
        here = list[Table]()
        for path in sorted(root.glob(f"{level}*.[ct]sv")):
            with suppress(BadInput):  # which is said of it as of a list of splits
                here.append(read_table(path))
        tables |= {table.path: table for table in here}
        listing = [*filter(None, (_as_manifest(table, root) for table in _joined(here)))]
        if level:
            listing = [table for table in listing if _lists_half(table, root)]
        if len(listing) > 1:  # all.csv beside train.csv and test.csv
            listing = [table for table in listing if "split" in table.columns]
        if len(listing) == 1:
            return root, listing[0].path, tables | {listing[0].path: listing[0]}
    return root, None, tables


def _lists_half(table: Table, root: Path) -> bool:
    """Whether a table in a folder lists half of the scans below root or more, and not those of that folder alone."""
    cells = {cell for row in table.rows.values() for cell in row.values() if names_scan(cell)}
    return 2 * len(cells) >= sum(names_scan(path.name) for path in root.rglob("*"))


def _joined(tables: Sequence[Table]) -> list[Table]:
    """The tables, those of one split each that stand beside each other and share a column as one."""
    parts = grouped(
        (table.path.parent, table)
        for table in tables
        if split_in(table.path.stem) and not FOLD.search(table.path.stem)
    )
    joined = list[Table]()
    for folder, own in parts.items():
        splits = [split_in(table.path.stem) for table in own]
        columns = dict.fromkeys(name for table in own for name in table.columns)
        is_shared = any(all(name in table.columns for table in own) for name in columns)
        if len({*splits}) < len(own) or "split" in columns or not is_shared:
            continue
        rows = {
            where: dict.fromkeys(columns, "") | row | {"split": split}
            for table, split in zip(own, splits)
            for where, row in table.rows.items()
        }
        name = ", ".join(table.path.name for table in own)
        assumed = [sentence for table in own for sentence in table.assumed]
        joined.append(Table(folder / name, rows, assumed))
    names = {where for table in joined for where in table.rows}
    return joined + [table for table in tables if not names & {*table.rows}]


def _as_manifest(table: Table, root: Path) -> Table | None:
    """A table that lists files, with their paths and a case in each row; None for any other.

    That is one with columns of modalities and of paths, or with the scans of two modalities and cases, patients, or a
    modality that is known.
    """
    columns = {*table.columns}
    if {"modality", "path"} <= columns:
        return table
    bases = (table.path.parent, root)
    others = [name for name in table.columns if name not in COLUMNS]
    known = [name for name in others if is_known(modality_in(name))]
    if len(known) > 1:
        table = _with_paths(table, known, bases)
    scans = [
        name
        for name in others
        if any(names_scan(cell) and places(cell, bases) for cell in table.column(name))
    ]
    if len(scans) < 2 or not (columns & {"case", "patient"} or {*scans} & {*known}):
        return None
    cells = [(case_in(row), name) for row in table.rows.values() for name in scans if row.get(name)]
    are_apart = len({*cells}) == len(cells)  # else a patient has several rows of scans
    if "case" in columns or ("patient" in columns and are_apart):
        return table
    return _with_cases(table, scans) or (table if "patient" in columns else None)


def _with_paths(table: Table, columns: Sequence[str], bases: Sequence[Path]) -> Table:
    """The table with the paths of scans that its columns of modalities name by their files' names alone, below a folder."""
    cells = [cell for name in columns for cell in table.column(name) if cell]
    if all(places(cell, bases) or re.search(r"[/\\]", cell) for cell in cells):
        return table
    root = bases[-1]
    paths = [path.relative_to(root).as_posix() for path in root.rglob("*") if names_scan(path.name)]
    by_name = grouped(
        (name, path)
        for path in paths
        for name in {posixpath.basename(path), posixpath.basename(without_ending(path))}
    )

    def placed(name: str, cell: str) -> str:
        own = by_name.get(cell, ()) if not (cell.isdecimal() or places(cell, bases)) else ()
        # n1.nii.gz in the folder of each modality
        fitting = [path for path in own if modality_in(name) in path.lower().split("/")[:-1]] or own
        return fitting[0] if len(fitting) == 1 else cell

    rows = {
        where: row | {name: placed(name, row[name]) for name in columns}
        for where, row in table.rows.items()
    }
    return replace(table, rows=rows)


def _with_cases(table: Table, scans: Sequence[str]) -> Table | None:
    """The table with a case in each row: what differs between the folders and names of its first scans; None where nothing does."""
    firsts = [next(filter(None, map(row.get, scans)), "") for row in table.rows.values()]
    read = [read_names(path.replace("\\", "/")) for path in firsts]
    parts = [[*names.ids, names.modality] for names in read]
    shared = {*parts[0]}.intersection(*parts) if len(parts) > 1 else {parts[0][-1]}
    cases = ["_".join(name for name in own if name and name not in shared) for own in parts]
    if not all(cases) or len({*cases}) < len(cases):
        return None
    rows = {where: row | {"case": case} for (where, row), case in zip(table.rows.items(), cases)}
    said = f"{table.path.name}: the cases are named by the paths of their scans"
    return replace(table, rows=rows, assumed=[*table.assumed, said])
