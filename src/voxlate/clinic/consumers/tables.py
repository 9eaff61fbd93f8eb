"""A table from HU to another quantity, by straight lines between its rows."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.files import write_text
from voxlate.base.slabs import in_slabs

# By HU: the least and the largest value relative to water; tables of scanners are well within.
PLAUSIBLE = {-1000.0: (0.0, 0.3), 0.0: (0.9, 1.1), 1000.0: (0.9, 2.2), 3000.0: (0.9, 5.0)}


@dataclass(frozen=True)
class HuTable:
    """Values of a column by HU; source: where they are from. Beyond its ends the table is constant."""

    column: str
    hu: tuple[float, ...]
    values: tuple[float, ...]
    source: str

    def __call__(self, hu: np.ndarray) -> np.ndarray:
        """The values of voxels in HU, float32 of the same shape."""

        def look_up(slab: np.ndarray) -> np.ndarray:
            """The values of some voxels."""
            return np.asarray(np.interp(slab, self.hu, self.values), np.float32)

        return in_slabs(look_up, hu)

    def write(self, path: Path) -> None:
        """Write the table as the CSV that `read_table` reads."""
        rows = [f"{hu:.6g},{value:.6g}" for hu, value in zip(self.hu, self.values)]
        write_text(path, "\n".join([f"hu,{self.column}", *rows, ""]))


def read_table(path: Path, column: str) -> HuTable:
    """A CSV file with the columns hu and `column`; raises BadInput unless HU grow and values never fall."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = [*reader]
        names = reader.fieldnames or ()
        if None in {key for row in rows for key in row} or len({*names}) < len(names):
            raise ValueError("a row of more fields than columns, or a column twice")
        hu = tuple(float(row["hu"]) for row in rows)
        values = tuple(float(row[column]) for row in rows)
    except FileNotFoundError as error:
        raise BadInput(f"--table {path}: expected a file, found none. Check the path.") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise BadInput(
            f"--table {path}: expected CSV with the columns hu,{column} and numbers, found something else ({error}). Fix the file."
        ) from error
    if len(hu) < 2 or not np.isfinite([*hu, *values]).all() or min(values) < 0:
        raise BadInput(
            f"--table {path}: expected two rows or more of finite numbers, {column} at least 0, found others. Fix the file."
        )
    for before, after, low, high in zip(hu, hu[1:], values, values[1:]):
        if after <= before or high < low:
            raise BadInput(
                f"--table {path}: expected hu that grow and {column} that never falls, found {before:g} → {after:g} HU with {low:g} → {high:g}. Sort or fix the rows."
            )
    table = HuTable(column, hu, values, str(path.name))
    for known, (least, most) in PLAUSIBLE.items():
        relative = float(table(np.full(1, known))[0])
        if not least <= relative <= most:
            raise BadInput(
                f"--table {path}: expected {column} relative to water, {least:g} to {most:g} at {known:g} HU, found {relative:g} there. Divide by that of water, and give HU without an offset."
            )
    return table
