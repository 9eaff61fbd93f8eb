"""Values for the page without the places of this machine."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from voxlate.cohorts.pseudonyms import without_names


def cleaned(value: Any, places: Mapping[str, str]) -> Any:
    """A value whose texts have no absolute path."""
    if isinstance(value, Markup):  # a drawing, which names no place
        return value
    if isinstance(value, str):
        return without_names(value, places)
    if isinstance(value, list | tuple):
        return [cleaned(one, places) for one in value]
    if isinstance(value, dict):
        return {key: cleaned(one, places) for key, one in value.items()}
    return value
