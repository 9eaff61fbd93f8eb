"""The evidence ledger: results as lines of a TSV, and which of them are worse than earlier ones. See evidence.py."""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import mean

from voxlate.base.errors import BadInput
from voxlate.base.groups import grouped

DIRTY = "+"  # at the end of a commit whose src/ has changes that are not committed
NOMINAL_COVERAGE = 0.9
# Earlier results count as equal up to this share of a spread, because the file has rounded numbers.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Result:
    """What one commit reached on one row and seed; None stands for a score that the row does not have.

    steps: of each stage, joined by +; minutes: of the training; mae, mae_levelled: see evidence.py;
    coverages: of each held-out patient, where there are several.
    """

    commit: str
    date: str
    machine: str
    row: str
    seed: int
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
    """A compared score: its loss, which is 0 or least at best, and the spread where a row has no repeats.

    relative: whether that spread is a share of the best earlier loss.
    """

    name: str
    loss: Callable[[float], float]
    spread: float
    relative: bool = False


MEASURES = (
    Measure("mae", lambda value: value, 0.03, relative=True),
    Measure("mae_levelled", lambda value: value, 0.03, relative=True),
    Measure("ssim", lambda value: 1 - value, 0.01),
    Measure("gradient_ratio", lambda value: abs(1 - value), 0.04),
    Measure("bone_dice", lambda value: 1 - value, 0.03),
    Measure("coverage", lambda value: abs(NOMINAL_COVERAGE - value), 0.03),
    Measure("interval_r", lambda value: 1 - value, 0.05),
)
COLUMNS = tuple(field.name for field in fields(Result))
TEXTS = ("commit", "date", "machine", "row", "steps", "coverages")


def read(path: Path) -> list[Result]:
    """The results of a file, in the order in which they were measured; none without a file."""
    if not path.exists():
        return []
    found = []
    with path.open(encoding="utf-8", newline="") as file:
        for number, line in enumerate(csv.DictReader(file, delimiter="\t"), start=2):
            try:
                found.append(_parse(line))
            except (KeyError, TypeError, ValueError) as error:
                raise BadInput(
                    f"{path}, line {number}: expected a result with the columns {', '.join(COLUMNS)}, found another line. Restore it, or remove it."
                ) from error
    return found


def append(path: Path, results: Sequence[Result]) -> None:
    """Add results to a file, which begins with the names of the columns."""
    if not results:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_bytes() if path.exists() else b""
    begins = not before
    with path.open("a", encoding="utf-8", newline="") as file:
        if before and not before.endswith(b"\n"):  # an interrupted line
            file.write("\n")
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        if begins:
            writer.writerow(COLUMNS)
        for result in results:
            writer.writerow(_text(getattr(result, name)) for name in COLUMNS)


def is_measured(
    results: Iterable[Result], commit: str, machine: str, rows: Sequence[str], seed: int
) -> bool:
    """Whether a commit has all these rows on this kind of machine; uncommitted code is always measured again."""
    if commit.endswith(DIRTY):
        return False
    known = {
        result.row
        for result in results
        if (result.commit, result.machine, result.seed) == (commit, machine, seed)
    }
    return known.issuperset(rows)


def worse(results: Sequence[Result], commit: str) -> list[str]:
    """A sentence for each score of a commit that is worse than the best earlier one by more than its spread.

    Seeds and repeats of a commit count as their mean. Uncommitted code counts as no earlier result.
    """
    counted = _without_outdated(results)
    groups = grouped(((result.machine, result.row), result) for result in counted)
    found = []
    for (machine, row), group in groups.items():
        for measure in MEASURES:
            if sentence := _compare(group, commit, measure):
                found.append(f"{row} on {machine}: {sentence}")
    return found


def _without_outdated(results: Sequence[Result]) -> list[Result]:
    """The results without those of uncommitted code that were measured again: the code may have changed between."""
    last = {(one.commit, one.machine, one.row, one.seed): one for one in results}
    return [one for one in results if not one.commit.endswith(DIRTY) or one in last.values()]


def _compare(group: Sequence[Result], commit: str, measure: Measure) -> str:
    """What is worse in one score of one row on one kind of machine; "" if nothing is."""
    values = _values_by_commit(group, measure.name)
    now = values.pop(commit, None)
    if now is None:
        return ""
    earlier = {name: own for name, own in values.items() if _is_earlier(group, name, commit)}
    if not earlier:
        return ""
    best = min(earlier, key=lambda name: _mean_loss(earlier[name], measure))
    least = _mean_loss(earlier[best], measure)
    allowed = _spread([now, *earlier.values()], least, measure)
    if _mean_loss(now, measure) - least <= allowed + ROUNDING:
        return ""
    return (
        f"{measure.name} {mean(now):.4g} of {commit} is worse than "
        f"{mean(earlier[best]):.4g} of {best} by more than the spread of {allowed:.2g}"
    )


def _values_by_commit(group: Sequence[Result], name: str) -> dict[str, list[float]]:
    values = [(result.commit, getattr(result, name)) for result in group]
    return grouped((commit, value) for commit, value in values if value is not None)


def _is_earlier(group: Sequence[Result], name: str, commit: str) -> bool:
    """Whether a commit was measured before another one; uncommitted code never counts."""
    order = list(dict.fromkeys(result.commit for result in group))
    return not name.endswith(DIRTY) and order.index(name) < order.index(commit)


def _spread(repeats: Iterable[Sequence[float]], least: float, measure: Measure) -> float:
    """The largest range of losses within a commit that has repeats, but at least the default."""
    ranges = [
        max(map(measure.loss, values)) - min(map(measure.loss, values))
        for values in repeats
        if len(values) > 1
    ]
    default = measure.spread * least if measure.relative else measure.spread
    return max([default, *ranges])


def _mean_loss(values: Sequence[float], measure: Measure) -> float:
    return mean(map(measure.loss, values))


def _parse(line: Mapping[str, str]) -> Result:
    numbers = {
        name: float(line[name]) if line[name] else None
        for name in COLUMNS
        if name not in (*TEXTS, "seed")
    }
    texts = {name: line[name] for name in TEXTS}
    return Result(**texts, seed=int(line["seed"]), **numbers)  # type: ignore[arg-type]


def _text(value: str | float | None) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
