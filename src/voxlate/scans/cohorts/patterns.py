"""Path patterns with {patient}, {case} and {modality}."""

import re
from collections.abc import Iterable
from pathlib import Path

from voxlate.base.errors import BadInput

WILDCARDS = {"*": "[^/]*", "**/": "(?:.*/)?"}
NAMES = ("patient", "case", "modality")


def path_expression(pattern: str) -> re.Pattern[str]:
    """A path pattern as a regular expression; a name that comes twice must read the same twice, a modality in any case."""
    out = ""
    for part in re.split(r"(\{\w+\}|\*\*/|\*)", pattern):
        name = part[1:-1]
        if not part.startswith("{"):
            out += WILDCARDS.get(part) or re.escape(part)
        elif name in NAMES:
            group = f"(?P<{name}>[^/]+)"
            again = f"(?i:(?P={name}))" if name == "modality" else f"(?P={name})"
            out += again if group in out else group
        else:
            raise BadInput(
                f"pattern '{pattern}': expected {{patient}}, {{case}} or {{modality}}, found {part}. Use these names."
            )
    return re.compile(out)


def fits_any(path: str, expressions: Iterable[re.Pattern[str]]) -> bool:
    """Whether a path is one of these patterns."""
    return any(expression.fullmatch(path) for expression in expressions)


def study_of(match: re.Match[str], root: Path) -> tuple[str | None, str]:
    """The patient (None: not stated) and the study in a path; root's name where the path states no study."""
    names = match.groupdict()
    patient = names.get("patient")
    return patient, names.get("case") or patient or root.resolve().name
