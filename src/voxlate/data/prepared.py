"""The prepared cohort on disk: a file for each case, and cohort.json, which lists them."""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import ValidationError

from voxlate.config import adapter
from voxlate.data.align import Preparation, Registered
from voxlate.data.case import CaseHeader, PreparedCase, open_case, read_header
from voxlate.data.doubles import refuse_leak
from voxlate.data.fingerprint import fingerprint
from voxlate.data.layout import CANONICAL, laid_out_header
from voxlate.data.split import SPLITS, fold_splits
from voxlate.errors import BadInput, first_of
from voxlate.files import read_json, write_json
from voxlate.images.intensity import IntensityMap, Scale, typical_scale
from voxlate.images.misalignment import Misalignment
from voxlate.images.statistics import Statistics
from voxlate.images.tiling import Triple

FORMAT = "voxlate prepared cohort"
VERSION = 3


@dataclass(frozen=True)
class Entry:
    """One line of cohort.json's list of cases."""

    case: str
    patient: str
    split: str
    present: list[str]
    labels: list[str]
    shape: Triple
    spacing_mm: tuple[float, float, float]
    mask_ml: float
    registered: dict[str, Registered] = field(default_factory=dict)
    misaligned: dict[str, Misalignment] = field(default_factory=dict)


@dataclass(frozen=True)
class Cohort:
    """A prepared cohort: its cases with their splits, the modalities and units, the fingerprint, what was done."""

    folder: Path
    cases: tuple[Entry, ...]
    modalities: tuple[str, ...]
    units: dict[str, str]
    fingerprint: dict[str, Any]
    warnings: tuple[str, ...]
    made: dict[str, Any]

    @property
    def splits(self) -> dict[str, list[str]]:
        """The names of the cases in each split."""
        return {name: [one.case for one in self.cases if one.split == name] for name in SPLITS}

    @property
    def preparation(self) -> Preparation:
        """How its cases came to one grid; the fixed modality by name, also where it is the first of a case."""
        made = {one.name: self.made[one.name] for one in fields(Preparation) if one.name in self.made}
        first, *_ = self.made.get("modalities") or self.modalities
        return adapter(Preparation).validate_python({**made, "fixed": made.get("fixed") or first})

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of cohort.json and of what every case was made from: other voxels, another cohort."""
        inputs = [self.header(one.case).inputs for one in self.cases]
        record = (self.folder / "cohort.json").read_bytes()
        return hashlib.sha256(record + repr(inputs).encode()).hexdigest()[:16]

    def in_fold(self, fold: int) -> "Cohort":
        """The cohort with the splits of a fold, 0 to 4 (see split.fold_splits)."""
        splits = fold_splits({one.patient: one.split for one in self.cases}, fold, self.folder)
        return self.with_splits({one.case: splits[one.patient] for one in self.cases})

    def with_splits(self, splits: Mapping[str, str]) -> "Cohort":
        """The cohort with other splits of the cases that are named, and so with the statistics of other cases."""
        cases = tuple(replace(one, split=splits.get(one.case, one.split)) for one in self.cases)
        headers = [self.header(one.case) for one in cases]
        training = [header for header, one in zip(headers, cases) if one.split == "train"]
        return replace(self, cases=cases, fingerprint=fingerprint(headers, training))

    def header(self, case: str, axes: str = CANONICAL) -> CaseHeader:
        """The header of a case, laid out with these axes (see data.layout)."""
        return laid_out_header(read_header(case_path(self.folder, case)), axes)

    def case(self, case: str) -> PreparedCase:
        return open_case(case_path(self.folder, case))

    def target_scale(self, spec: IntensityMap, modality: str, cases: Collection[str]) -> Scale:
        """The typical scale of a modality over training cases (see intensity.typical_scale)."""
        return typical_scale(spec, self._statistics(modality, cases))

    def target_widths(self, spec: IntensityMap, modality: str, cases: Collection[str]) -> list[float]:
        """Width of the narrowest and of the widest scale of a modality over training cases, in its unit."""
        widths = [(one := spec.scale(each)).high - one.low for each in self._statistics(modality, cases)]
        return [min(widths), max(widths)]

    def _statistics(self, modality: str, cases: Collection[str]) -> list[Statistics]:
        there = [one.case for one in self.cases if one.case in cases and modality in one.present]
        if not there:
            raise BadInput(f"{self.folder}: expected a training case with {modality}, found none. Prepare one.")
        return [self.header(case).statistics[modality] for case in there]


def open_cohort(path: Path | str) -> Cohort:
    """Open a folder that `prepare` made; raises BadInput where it is none, is damaged or leaks a patient."""
    folder = Path(path)
    if not (folder / "cohort.json").is_file():
        raise BadInput(f"{folder}: expected a prepared cohort, found no cohort.json in it. Run voxlate prepare first.")
    value = stated(folder)
    if value.get("version") != VERSION:
        raise BadInput(
            f"{folder}/cohort.json: expected a {FORMAT} of version {VERSION}, found version {value.get('version')}. "
            "Prepare it again."
        )
    try:
        plain = {key: item for key, item in value.items() if key not in ("format", "version")}
        cohort = adapter(Cohort).validate_python({"folder": folder, **plain})
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise BadInput(
            f"{folder}/cohort.json: expected a whole record, found a damaged '{place}'. Prepare it again."
        ) from error
    refuse_leak(((one.patient, one.split) for one in cohort.cases), folder)
    return cohort


def registration_lines(cases: Sequence[Entry]) -> dict[str, str]:
    """A line on each modality that was registered: the steps kept, and how similar the scans were before and after."""
    return {
        name: _registration_line({one.case: one.registered[name] for one in cases if name in one.registered})
        for name in sorted({name for one in cases for name in one.registered})
    }


def _registration_line(found: dict[str, Registered]) -> str:
    gains = {case: (one.before.mutual_information, one.after.mutual_information) for case, one in found.items()}
    before, after = (median(values) for values in zip(*gains.values()))
    worst = min(gains, key=lambda case: gains[case][1])
    steps = Counter(one.kept for one in found.values())
    kept = ", ".join(f"{step} kept in {count}" for step, count in steps.items())
    bare = [case for case, one in found.items() if one.kept == "none"]
    named = f" ({first_of(bare)})" if bare else ""
    return (
        f"registered to {next(iter(found.values())).to}: {kept}{named}; mutual information {before:.3f} → {after:.3f} "
        f"(median), {gains[worst][0]:.3f} → {gains[worst][1]:.3f} (worst, {worst})"
    )


def stated(folder: Path) -> dict[str, Any]:
    """What cohort.json says, of any version and not checked; raises BadInput where it is none of ours."""
    value = read_json(folder / "cohort.json")
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise BadInput(f"{folder}/cohort.json: expected a {FORMAT}, found something else. Choose another folder.")
    return value


def write_cohort(cohort: Cohort) -> None:
    """Write cohort.json, the last step of prepare: a folder without it is unfinished."""
    value = {key: item for key, item in asdict(cohort).items() if key != "folder"}
    write_json(cohort.folder / "cohort.json", {"format": FORMAT, "version": VERSION, **value})


def case_path(folder: Path, case: str) -> Path:
    return folder / "cases" / f"{case}.safetensors"
