"""The prepared cohort on disk: a file for each case, and cohort.json, which lists them."""

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from voxlate.base.config import Provided, adapter
from voxlate.base.errors import BadInput
from voxlate.base.files import read_json, write_json
from voxlate.base.groups import grouped
from voxlate.base.messages import Message, read_messages
from voxlate.base.records import (
    FileName,
    Length,
    Name,
    NotNegative,
    Number,
    Positive,
    Record,
    Split,
)
from voxlate.scans.cases.align import Preparation
from voxlate.scans.cases.case import (
    CANONICAL,
    CaseHeader,
    Contrasts,
    ContrastSettings,
    PreparedCase,
    Unit,
    lay_out_header,
    open_case,
    read_header,
)
from voxlate.scans.cohorts.split import FOLDS, SPLITS, fold_splits
from voxlate.scans.formats.format import errors_as
from voxlate.scans.images.intensity import IntensityMap, Scale, Statistics, typical_scale
from voxlate.scans.images.misalignment import Misalignment
from voxlate.scans.images.ranges import WIDEST_HEAD, Ends, assumed_window
from voxlate.scans.images.register import Registered
from voxlate.scans.images.units import check_window, unit_of

FORMAT = "voxlate prepared cohort"
VERSION = 4
# facts of a case that its file and the list of cases state
SHARED = ("case", "patient", "labels", "shape", "spacing_mm", "registered", "misaligned")
Fold = Annotated[int, Field(ge=0, lt=FOLDS)]
DRAWN_UNIT = "a.u."  # of modalities that are computed


@dataclass(frozen=True)
class CaseEntry:
    """One line of cohort.json's list of cases."""

    case: FileName
    patient: Name
    split: Split
    present: list[Name]
    labels: list[Name]
    shape: tuple[Length, Length, Length]
    spacing_mm: tuple[Positive, Positive, Positive]
    mask_ml: NotNegative
    registered: dict[Name, Registered] = field(default_factory=dict)
    misaligned: dict[Name, Misalignment] = field(default_factory=dict)
    fold: Fold | None = None  # in which a manifest says that the patient validates


@dataclass(frozen=True)
class Cohort:
    """A prepared cohort: its cases with their splits, the modalities and units, and its provenance.

    Args:
        folder: the folder that `prepare` wrote.
        cases: an Entry for each case: its name, patient, split, modalities, shape (D, H, W) and spacing in millimetres.
        modalities: names of all scans.
        units: unit by modality, such as "HU" or "a.u.".
        warnings: messages of `prepare`.
        provenance: options, sources and versions.
        drawn: modalities that are computed from tissue-parameter maps when they are read; no part of cohort.json.

    Example:
        >>> from voxlate.scans.cases.prepared import open_cohort
        >>> cohort = open_cohort("PREPARED")
        >>> cohort.units["t1"], cohort.cases[0].shape
        ('a.u.', (6, 24, 20))
    """

    folder: Path
    cases: tuple[CaseEntry, ...]
    modalities: tuple[str, ...]
    units: dict[str, str]
    warnings: tuple[Message, ...]
    provenance: dict[str, Any]
    drawn: Contrasts | None = None

    @property
    def splits(self) -> dict[str, list[str]]:
        """The names of the cases in each split."""
        return {name: [case.case for case in self.cases if case.split == name] for name in SPLITS}

    @property
    def held_out(self) -> dict[str, list[str]]:
        """The patients of the splits val and test."""
        return {
            name: sorted({case.patient for case in self.cases if case.split == name})
            for name in ("val", "test")
        }

    @property
    def overview(self) -> dict[str, Any]:
        """Cases and patients in all and by split, and cases with each modality, label map and mask file; units and grids."""
        of_patients = {case.patient: case.split for case in self.cases}
        pairs = [("cases", case.split) for case in self.cases]
        pairs += [("patients", split) for split in of_patients.values()]
        for case in self.cases:
            mask = ["mask"] if self.header(case.case).has_mask_file else []
            pairs += [(name, case.split) for name in (*case.present, *case.labels, *mask)]
        rows = {
            name: {"all": len(own), **{split: own.count(split) for split in SPLITS}}
            for name, own in grouped(pairs).items()
        }
        grids = Counter("×".join(map(str, reversed(case.shape))) for case in self.cases)
        return {"rows": rows, "units": self.units, "grids": dict(grids.most_common())}

    @property
    def preparation(self) -> Preparation:
        """How its cases came to one grid; the fixed modality by name, also where it is the first of a case."""
        options = {
            field.name: self.provenance.get(field.name, field.default)
            for field in fields(Preparation)
        }
        first, *_ = self.provenance.get("modalities") or self.modalities
        options["fixed"] = options["fixed"] or first
        sentence = (
            f"{self.folder / 'cohort.json'}: expected the options of a preparation, found others"
        )
        with errors_as(sentence, "Prepare it again."):
            return adapter(Preparation).validate_python(options)

    @property
    def has_stated_window(self) -> bool:
        """Whether `prepare --window` stated what pictures of CT show."""
        return self.provenance.get("window") is not None

    @cached_property
    def windows(self) -> dict[str, Ends]:
        """The window of each modality of CT that holds pictures: the values in HU that are black and white.

        It is the one that `prepare --window` stated, or else one that pictures are assumed to show.
        """
        pictures = [
            name for name, unit in self.units.items() if unit == "grey" and unit_of(name) == "HU"
        ]
        if not self.has_stated_window:
            return {name: assumed_window(name, self._shows_heads(name)) for name in pictures}
        file = self.folder / "cohort.json"
        sentence = f"{file}: expected a window of two numbers, found another"
        with errors_as(sentence, "Prepare it again."):
            low, high = adapter(tuple[Number, Number]).validate_python(self.provenance["window"])
        check_window((low, high), f"{file}: ")
        return dict.fromkeys(pictures, (low, high))

    def _shows_heads(self, name: str) -> bool:
        """Whether bodies with a modality have the outline of heads; pictures need not have a voxel size."""
        headers = [self._header(entry.case) for entry in self.cases if name in entry.present]
        sides = [np.diff(header.mask_box)[1:, 0] * header.spacing_mm[1:] for header in headers]
        return float(np.median([wide / deep for deep, wide in sides])) < WIDEST_HEAD

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of cohort.json and of the inputs of every case, which change with any voxel."""
        inputs = [self._header(entry.case).inputs for entry in self.cases]
        record = (self.folder / "cohort.json").read_bytes()
        return hashlib.sha256(record + repr(inputs).encode()).hexdigest()[:16]

    def in_fold(self, fold: int) -> "Cohort":
        """The cohort with the splits of a fold, 0 to 4 (see split.fold_splits)."""
        stated = {case.patient: case.fold for case in self.cases if case.fold is not None}
        of_patients = {case.patient: case.split for case in self.cases}
        splits = fold_splits(of_patients, fold, self.folder, stated)
        cases = tuple(replace(case, split=splits[case.patient]) for case in self.cases)
        return replace(self, cases=cases)

    def median(self, name: Literal["spacing_mm", "mask_ml"]) -> Any:
        """The median over all cases of a number, or of each of several, of their headers."""
        values = [getattr(self.header(entry.case), name) for entry in self.cases]
        return np.round(np.median(np.array(values, np.float64), axis=0), 4).tolist()

    def with_physics(
        self, physics: ContrastSettings, targets: Sequence[str], must_draw: bool = True
    ) -> "Cohort":
        """The cohort with the modalities that `data.physics` draws from its maps.

        targets: of the model; must_draw: raise BadInput where no case has the maps, instead of leaving it as it is.
        """
        physics.check(targets, {})
        drawn: Contrasts = Provided("contrasts").load()(physics, tuple(targets))
        having = {entry.case for entry in self.cases if drawn.computes(self.header(entry.case))}
        if not having:
            if not must_draw:
                return self
            maps = sorted(physics.needs)
            raise BadInput(
                f"{self.folder}: expected cases with the tissue-parameter maps of data.physics ({', '.join(maps)}), found {', '.join(self.modalities)}. Write phantoms with these (voxlate phantom --modalities ct --modalities maps) and prepare them, or drop data.physics."
            )
        cases = tuple(
            replace(entry, present=[*entry.present, *drawn.names])
            if entry.case in having
            else entry
            for entry in self.cases
        )
        units = self.units | {name: DRAWN_UNIT for name in drawn.names if name not in self.units}
        modalities = tuple(dict.fromkeys((*self.modalities, *drawn.names)))
        return replace(self, cases=cases, modalities=modalities, units=units, drawn=drawn)

    def header(self, case: str, axes: str = CANONICAL) -> CaseHeader:
        """The header of a case with these axes (see case.lay_out)."""
        (header,) = self.headers_of_draws(case, None)
        return lay_out_header(header, axes)

    def headers_of_draws(self, case: str, draws: int | None) -> list[CaseHeader]:
        """Headers with the statistics of several draws of data.physics; the header alone where nothing is drawn.

        draws: None for the header of the case's fixed draw alone.
        """
        header = self._header(case)
        if self.drawn is None or not self.drawn.computes(header):
            return [header]
        stored = self._open(case)
        if draws is None:
            return [self.drawn.add_to_header(stored)]
        return [self.drawn.with_contrasts(stored, number) for number in range(draws)]

    def case(self, case: str) -> PreparedCase:
        """A case, with the contrasts of data.physics where they are drawn."""
        prepared = self._open(case)
        if self.drawn is None or not self.drawn.computes(prepared.header):
            return prepared
        return replace(prepared, header=self.drawn.add_to_header(prepared), contrasts=self.drawn)

    def _header(self, case: str) -> CaseHeader:
        """The header of a case on disk."""
        return read_header(case_path(self.folder, case))

    def _open(self, case: str) -> PreparedCase:
        """A case on disk."""
        return open_case(case_path(self.folder, case))

    def target_scale(self, spec: IntensityMap, modality: str, cases: Collection[str]) -> Scale:
        """The typical scale of a modality over training cases (see intensity.typical_scale)."""
        return typical_scale(spec, self._statistics(modality, cases))

    def target_widths(
        self, spec: IntensityMap, modality: str, cases: Collection[str]
    ) -> list[float]:
        """Width of the narrowest and of the widest scale of a modality over training cases, in its unit."""
        scales = map(spec.scale, self._statistics(modality, cases))
        widths = [scale.high - scale.low for scale in scales]
        return [min(widths), max(widths)]

    def _statistics(self, modality: str, cases: Collection[str]) -> list[Statistics]:
        statistics = [
            self.header(entry.case).statistics[modality]
            for entry in self.cases
            if entry.case in cases and modality in entry.present
        ]
        if not statistics:
            raise BadInput(
                f"{self.folder}: expected a training case with {modality}, found none. Prepare one."
            )
        return statistics


def open_cohort(path: Path | str) -> Cohort:
    """Open a folder that `prepare` wrote; raises BadInput where it is none, or is damaged."""
    folder = Path(path)
    if not (folder / "cohort.json").is_file():
        raise BadInput(
            f"{folder}: expected a prepared cohort, found no cohort.json in it. Run voxlate prepare first."
        )
    value = read_json(folder / "cohort.json")
    record = Record(folder / "cohort.json", "the record of a prepared cohort", "Prepare it again.")
    written = record.fill(CohortFile, value)
    return Cohort(
        folder,
        written.cases,
        written.modalities,
        written.units,
        tuple(read_messages(value)),
        written.provenance,
    )


@dataclass(frozen=True)
class CohortFile:
    """cohort.json."""

    format: Literal["voxlate prepared cohort"]
    version: Literal[4]
    cases: tuple[CaseEntry, ...]
    modalities: tuple[Name, ...]
    units: dict[Name, Unit]
    warnings: tuple[Message, ...]
    provenance: dict[str, Any]


def write_cohort(cohort: Cohort) -> None:
    """Write cohort.json, the last step of prepare: a folder without it is unfinished."""
    value = asdict(replace(cohort, drawn=None))
    del value["folder"], value["drawn"]
    value["warnings"] = [warning.table for warning in cohort.warnings]
    write_json(cohort.folder / "cohort.json", {"format": FORMAT, "version": VERSION, **value})


def case_path(folder: Path, case: str) -> Path:
    """The file of a case of the cohort in a folder."""
    return folder / "cases" / f"{case}.safetensors"
