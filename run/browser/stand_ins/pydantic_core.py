"""The names of pydantic-core that modules import, and that a synthesis in a browser does not call (see pydantic.py)."""

from typing import Any

core_schema: Any = None
PydanticCustomError: Any = None
