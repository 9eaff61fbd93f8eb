"""What resumable benchmarks share: rows as JSON lines next to a script, and the layout of a cohort of scans."""

import json
from pathlib import Path
from typing import Any


def finished(results: Path) -> list[dict[str, Any]]:
    """The rows that a file of results has so far; none without a file."""
    return (
        [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    )


def layout(cohort: Path) -> dict[str, Any]:
    """How a cohort's files are found: by the manifest next to it, where there is one."""
    manifest = cohort.with_name(f"{cohort.name}.csv")
    return {"manifest": manifest} if manifest.exists() else {}
