"""RUN/log.jsonl: its lines, as resumed trainings and reports read them."""

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxlate.base.config import adapter
from voxlate.training.verdict import Verdict


@dataclass(frozen=True)
class Curve:
    """One quantity over training steps."""

    name: str
    steps: tuple[float, ...]
    values: tuple[float, ...]


def lines_of(log: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The text and content of each line, without lines that a killed run cut short; none without a log."""
    texts = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    for text in texts:
        try:
            line: dict[str, Any] = json.loads(text)
        except ValueError:
            continue
        yield text, line


def curves_of(log: Path) -> dict[tuple[str, str], list[Curve]]:
    """The curves in a log.jsonl by stage and group ("loss", "validation", "lr", "items_per_s"), without cut lines."""
    points_of = defaultdict[tuple[str, str], dict[str, dict[float, float]]](dict)
    for _, line in lines_of(log):
        turn = line.get("turn")
        for group in ("loss", "validation", "lr", "items_per_s"):
            values = line.get(group, {})
            named = points_of[line.get("stage", ""), group]
            for name, value in (values if isinstance(values, dict) else {group: values}).items():
                label = f"{turn}: {name}" if group == "loss" and turn not in (None, "net") else name
                if math.isfinite(value):
                    # A resumed run writes some steps twice, and the later line counts.
                    named.setdefault(label, {})[line["step"]] = value
    return {
        key: [Curve(name, *zip(*sorted(own.items()))) for name, own in named.items()]
        for key, named in points_of.items()
        if named
    }


def read_verdicts(log: Path) -> dict[str, list[Verdict]]:
    """The last verdicts of each stage of a training by its log; {} without a log."""
    found = dict[str, list[Verdict]]()
    for _, line in lines_of(log):
        if "verdict" in line:
            by_target = adapter(dict[str, Verdict]).validate_python(line["verdict"])
            found[line["stage"]] = list(by_target.values())
    return found
