"""The evidence ledger: results as lines of a TSV, and which of them are worse than earlier ones. See evidence.py."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from voxlate.base.groups import grouped

DIRTY = "+"  # at the end of a commit whose src/ has changes that are not committed
# Earlier results count as equal up to this share of a spread, because the file has rounded numbers.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Result:
    """What one commit reached on one row; None stands for a score that the row does not have.

    steps: of each stage, joined by +; minutes: of the training; mae, mae_levelled: see evidence.py;
    coverages: of each held-out patient, where there are several.
    """

    commit: str
    date: str
    machine: str
    row: str
    steps: str = ""
    minutes: float | None = None
    mae: float | None = None
    ssim: float | None = None
    gradient_ratio: float | None = None
    bone_dice: float | None = None
    coverage: float | None = None
    coverages: str = ""
    interval_r: float | None = None
    mae_levelled: float | None = None


@dataclass(frozen=True)
class Measure:
    """A compared score: its best value, and the spread of its loss between repeats.

    relative: whether that spread is a share of the best earlier loss.
    """

    name: str
    best: float
    spread: float
    relative: bool = False

    def is_in(self, result: Result) -> bool:
        """Whether a result has the score."""
        return getattr(result, self.name) is not None

    def loss(self, result: Result) -> float:
        """The distance of a result from the best value."""
        return abs(float(getattr(result, self.name)) - self.best)


MEASURES = (
    Measure("mae", 0, 0.03, relative=True),
    Measure("mae_levelled", 0, 0.03, relative=True),
    Measure("ssim", 1, 0.01),
    Measure("gradient_ratio", 1, 0.04),
    Measure("bone_dice", 1, 0.03),
    Measure("coverage", 0.9, 0.03),
    Measure("interval_r", 1, 0.05),
)
COLUMNS = tuple(field.name for field in fields(Result))
TEXTS = ("commit", "date", "machine", "row", "steps", "coverages")


def read(path: Path) -> list[Result]:
    """The results of a file, in the order in which they were measured; none without a file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [_parse(line) for line in csv.DictReader(file, delimiter="\t")]


def _parse(line: dict[str, str]) -> Result:
    values: dict[str, Any] = {name: line[name] for name in TEXTS}
    for name in set(COLUMNS) - set(TEXTS):
        values[name] = float(line[name]) if line[name] else None
    return Result(**values)


def append(path: Path, results: Sequence[Result]) -> None:
    """Add results to a file, which begins with the names of the columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    begins = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        if begins:
            writer.writerow(COLUMNS)
        for result in results:
            writer.writerow(
                f"{value:.6g}" if isinstance(value, float) else value
                for value in asdict(result).values()
            )


def is_measured(results: Iterable[Result], commit: str, machine: str, rows: Sequence[str]) -> bool:
    """Whether a commit has all these rows on this kind of machine; uncommitted code is always measured again."""
    known = {one.row for one in results if (one.commit, one.machine) == (commit, machine)}
    return known.issuperset(rows) and not commit.endswith(DIRTY)


def worse(results: Sequence[Result], commit: str) -> list[str]:
    """A sentence for each score of a commit that is worse than the best earlier one by more than its spread.

    Of repeats of a commit the last one counts. Uncommitted code counts as no earlier result.
    """
    found = []
    for (machine, row), group in grouped(((one.machine, one.row), one) for one in results).items():
        own = [number for number, one in enumerate(group) if one.commit == commit]
        if not own:
            continue
        earlier = [one for one in group[: own[0]] if not one.commit.endswith(DIRTY)]
        for measure in MEASURES:
            if sentence := _compare(group[own[-1]], earlier, measure):
                found.append(f"{row} on {machine}: {sentence}")
    return found


def _compare(now: Result, earlier: Sequence[Result], measure: Measure) -> str:
    """What is worse in one score than in the best earlier result; "" if nothing is."""
    known = [(measure.loss(one), one.commit) for one in earlier if measure.is_in(one)]
    if not known or not measure.is_in(now):
        return ""
    least, best = min(known)
    allowed = measure.spread * least if measure.relative else measure.spread
    if measure.loss(now) - least <= allowed + ROUNDING:
        return ""
    return (
        f"{measure.name} of {now.commit} is {measure.loss(now):.4g} from its best value, "
        f"that of {best} {least:.4g}; the spread is {allowed:.2g}"
    )
