"""Tables that say which tissue each value of a label map is: those that come with the package, or a user's own."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import StrictInt

from voxlate.anatomy.phantom_options import SHIPPED
from voxlate.anatomy.tissue import Label, Tissue, patient
from voxlate.base.array_types import AnyArray
from voxlate.base.config import fill, setting, settings
from voxlate.base.errors import BadInput, known_name
from voxlate.base.items import stable_id
from voxlate.base.option import read_shipped

# What a label map does not tell apart; label_anatomy.py draws the tissues of each.
DRAWN = (
    "soft",  # fat, muscle and, where the map has none, skin
    "cancellous",  # diploe of the skull, marrow elsewhere
    "whole_bone",  # a cortex of bone around marrow
    "fluid",  # around brain and cord, or in any organ
    "hollow",  # an organ whose wall encloses its content and gas
)
_NAMES = {label.name.lower(): int(label) for label in Label}
_FIRST_OWN = len(Label)
_FIRST_DRAWN = 250 - len(DRAWN)
CODES = {name: _FIRST_DRAWN + number for number, name in enumerate(DRAWN)}
_RANGE = re.compile(r"(\d+)-(\d+)")
_CHANGE = "Change KEY in the table."
HU_SPREAD = 1.5  # standard deviation of own tissues between patients
Share = Annotated[float, setting("a share", ge=0, le=1)]
Time = Annotated[float, setting("a time in ms", ge=0.05, le=20000)]


@settings
class OwnTissue:
    """A tissue that a table adds: proton density relative to water, relaxation at 3 T, Hounsfield units.

    gadolinium_mm: some minutes after the usual dose; fat: fraction of its protons.
    """

    pd: Share
    t1_ms: Time
    t2_ms: Time
    t2star_ms: Time
    hu: Annotated[float, setting("Hounsfield units", ge=-1024, le=3071)]
    gadolinium_mm: Annotated[float, setting("concentration in mM", ge=0, le=10)] = 0.1
    chi_ppm: Annotated[float, setting("relative to water", ge=-1000, le=1000)] = 0.0
    fat: Share = 0.0

    def __post_init__(self) -> None:
        if not self.t2star_ms <= self.t2_ms <= self.t1_ms:
            raise BadInput(
                f"expected t2star_ms <= t2_ms <= t1_ms of a tissue, found {self.t2star_ms:g}, {self.t2_ms:g} and {self.t1_ms:g}. Correct them."
            )


@settings
class _Written:
    """A table as its file states it; ranges of labels are texts such as "10-14"."""

    title: str
    source: str = ""
    inside: Literal["air", "soft"] = "air"
    coat_mm: Annotated[float, setting("depth of fat around the labels", ge=0, le=100)] = 0.0
    labels: dict[str, list[StrictInt | str]]
    tissues: dict[str, OwnTissue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.coat_mm and self.inside == "air":
            raise BadInput(
                "expected coat_mm with inside = 'soft' alone, found it with inside = 'air'. Remove one of them."
            )


@dataclass(frozen=True)
class LabelTable:
    """Tissues of label values.

    inside: what the label 0 is inside the closed hull of the labels: air, or soft tissue, which also lies around them to a
    depth of coat_mm. codes: of each value, a number of `Label`, of an own tissue (from len(Label) on), or of CODES.
    """

    name: str
    inside: Literal["air", "soft"]
    coat_mm: float
    codes: dict[int, int]
    own: dict[str, OwnTissue]

    def tissue(self, rng: np.random.Generator) -> Tissue:
        """The constants of one patient, the table's own tissues last, which vary as the others do."""
        known = patient(rng)
        if not self.own:
            return known
        spread = {"pd": 0.01, "t1_ms": 0.03, "t2_ms": 0.04, "t2star_ms": 0.05}
        columns = []
        for column in fields(Tissue):
            values = [getattr(tissue, column.name, 0.0) for tissue in self.own.values()]
            drawn = rng.standard_normal(len(values))
            more = np.array(values) * np.exp(spread.get(column.name, 0.0) * drawn)
            if column.name == "hu":
                more = more + HU_SPREAD * drawn
            more = more.astype(np.float32)
            columns.append(np.concatenate([getattr(known, column.name), more]))
        return Tissue(*columns)

    @property
    def digest(self) -> str:
        """A hash of all that the table states of labels and tissues."""
        content = (self.inside, self.coat_mm, sorted(self.codes.items()), sorted(self.own.items()))
        return f"{stable_id(repr(content)):016x}"

    @property
    def names(self) -> dict[str, int]:
        """The tissues by name, as `seg` numbers them."""
        return _NAMES | {name: _FIRST_OWN + k for k, name in enumerate(self.own)}

    def convert(self, labels: AnyArray, where: str) -> AnyArray:
        """The codes of a label map, uint8; raises BadInput for a value that the table does not have."""
        values = np.unique(labels).tolist()
        unknown = [value for value in values if value not in self.codes]
        if unknown:
            listed = ", ".join(map(str, unknown[:8])) + (" and more" if len(unknown) > 8 else "")
            raise BadInput(
                f"{where}: expected labels of the table '{self.name}', found {listed}, which it does not have. Add each to a tissue of a table of your own, and name that one."
            )
        table = np.zeros(values[-1] + 1, np.uint8)
        table[values] = [self.codes[value] for value in values]
        return np.asarray(table[labels])


def read_table(table: str | Path) -> LabelTable:
    """A table by its name, or the path of a TOML file; raises BadInput for one that cannot be used."""
    path = str(table)
    written = fill(_Written, read_shipped(SHIPPED, table, "--tissues"), path, _CHANGE)
    codes = {0: int(Label.AIR)}
    label_table = LabelTable(
        Path(table).stem, written.inside, written.coat_mm, codes, written.tissues
    )
    known = label_table.names | CODES
    _check_tissues(path, written, known)
    # A label of air is internal where 0 is not air.
    known["air"] = int(Label.AIR if written.inside == "air" else Label.SINUS)
    for name, ranges in written.labels.items():
        for value in _values(path, name, ranges):
            if value == 0 and name != "air":
                raise BadInput(
                    f"{path}: expected 0 to be what has no label, found it in {name}. Remove it."
                )
            if codes.setdefault(value, known[name]) != known[name] and value:
                raise BadInput(
                    f"{path}: expected each label in one tissue, found {value} in {name} and in another one. Remove it from one."
                )
    return label_table


def _check_tissues(path: str, written: _Written, known: Mapping[str, int]) -> None:
    """Raise BadInput for tissues that do not exist, or exist already."""
    own = written.tissues
    for name in own.keys() & (_NAMES | CODES).keys():
        raise BadInput(
            f"{path}: expected new names in [tissues], found {name}, which exists. Rename yours."
        )
    if len(own) > _FIRST_DRAWN - _FIRST_OWN:
        raise BadInput(
            f"{path}: expected at most {_FIRST_DRAWN - _FIRST_OWN} tissues in [tissues], found {len(own)}. Merge some."
        )
    for name in written.labels:
        known_name(path, "tissues in [labels], or a table [tissues.NAME]", name, known)


def _values(path: str, name: str, ranges: Sequence[int | str]) -> list[int]:
    """The label values of a tissue."""
    values = list[int]()
    for item in ranges:
        match = _RANGE.fullmatch(item) if isinstance(item, str) else None
        if match is not None and int(match[1]) <= int(match[2]) < 10**6:
            values += range(int(match[1]), int(match[2]) + 1)
        elif isinstance(item, int) and 0 <= item < 10**6:
            values.append(item)
        else:
            raise BadInput(
                f'{path}: expected labels of {name} as numbers or ranges such as "10-14", found {item!r}. Change it.'
            )
    return values
