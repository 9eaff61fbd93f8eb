"""What resumable benchmarks share: rows as JSON lines next to a script."""

import json
from pathlib import Path
from typing import Any


def finished(results: Path) -> list[dict[str, Any]]:
    """The rows that a file of results has so far; none without a file."""
    return (
        [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    )
