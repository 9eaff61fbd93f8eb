"""What resumable benchmarks share: rows as JSON lines next to a script."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def finished(results: Path) -> list[dict[str, Any]]:
    """The rows that a file of results has so far; none without a file."""
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]


def append(results: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Add rows to a file of results."""
    with results.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
