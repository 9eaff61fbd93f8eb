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

    `root` may itself be the manifest. By default that is a file of the folder with one of OWN_NAMES, or the only table in it
    that lists files by modality; tables of one split each are one.
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
    here = list[Table]()
    for path in sorted(root.glob("*.[ct]sv")):
        with suppress(BadInput):  # which is said of it as of a list of splits
            here.append(read_table(path))
    tables = {table.path: table for table in here}
    listing = [*filter(None, (_as_manifest(table, root) for table in _joined(here)))]
    if len(listing) > 1:  # all.csv beside train.csv and test.csv
        listing = [table for table in listing if "split" in table.columns]
    if len(listing) != 1:
        return root, None, tables
    return root, listing[0].path, tables | {listing[0].path: listing[0]}


def _joined(tables: Sequence[Table]) -> list[Table]:
    """The tables, those of one split each that share a column as one."""
    parts = [
        table for table in tables if split_in(table.path.stem) and not FOLD.search(table.path.stem)
    ]
    splits = [split_in(table.path.stem) for table in parts]
    columns = dict.fromkeys(name for table in parts for name in table.columns)
    is_shared = any(all(name in table.columns for table in parts) for name in columns)
    if len({*splits}) < len(splits) or "split" in columns or not is_shared:
        return [*tables]
    rows = {
        where: dict.fromkeys(columns, "") | row | {"split": split}
        for table, split in zip(parts, splits)
        for where, row in table.rows.items()
    }
    path = parts[0].path.with_name(", ".join(table.path.name for table in parts))
    assumed = [sentence for table in parts for sentence in table.assumed]
    return [Table(path, rows, assumed), *(table for table in tables if table not in parts)]


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
