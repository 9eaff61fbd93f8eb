"""The names of pydantic-core that modules import (see pydantic.py)."""

import json
from collections.abc import Callable
from typing import Any

core_schema: Any = None  # which a synthesis in a browser does not call, as the next
PydanticCustomError: Any = None


def to_json(values: Any, fallback: Callable[[Any], str]) -> str:
    """Plain values as JSON."""
    return json.dumps(values, default=fallback)
