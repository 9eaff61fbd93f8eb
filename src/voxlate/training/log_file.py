"""RUN/log.jsonl: its lines, as resumed trainings and reports read them."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from voxlate.base.config import adapter
from voxlate.training.verdict import Verdict

VALIDATION = "validation "  # begins the columns of validation scores


def lines_of(log: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The text and content of each line, without lines that a killed run cut short; none without a log."""
    texts = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    for text in texts:
        try:
            line: dict[str, Any] = json.loads(text)
        except ValueError:
            continue
        yield text, line


def history_of(log: Path) -> Any:
    """The losses and validation scores of a training as a pandas DataFrame: stage, step, and a column for each.

    A resumed run writes some steps twice, and the later line counts.
    """
    import pandas  # slow to import, and needed by no training

    rows = defaultdict[tuple[str, int], dict[str, float]](dict)
    for _, line in lines_of(log):
        row, turn = rows[line["stage"], line["step"]], line.get("turn", "net")
        begin = "" if turn == "net" else f"{turn}: "
        row |= {f"{begin}{name}": value for name, value in line.get("loss", {}).items()}
        row |= {f"{VALIDATION}{name}": value for name, value in line.get("validation", {}).items()}
    return pandas.DataFrame(
        {"stage": stage, "step": step, **row} for (stage, step), row in rows.items()
    )


def read_verdicts(log: Path) -> dict[str, list[Verdict]]:
    """The last verdicts of each stage of a training by its log; {} without a log."""
    found = dict[str, list[Verdict]]()
    for _, line in lines_of(log):
        if "verdict" in line:
            by_target = adapter(dict[str, Verdict]).validate_python(line["verdict"])
            found[line["stage"]] = list(by_target.values())
    return found
