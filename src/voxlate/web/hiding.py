"""Sentences and reports without the places of this machine."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from voxlate.data.pseudonyms import without_names
from voxlate.files import seen_from, write_text


def hide_places(page: Path, folders: Sequence[Path], labels: Mapping[str, str]) -> None:
    """Replace places in a report by labels, also where they are written relative to one of the folders."""
    text = page.read_text(encoding="utf-8")
    for place, label in labels.items():
        for shown in [place, *(seen_from(folder, Path(place)) for folder in folders)]:
            text = text.replace(html.escape(shown), html.escape(label))
    write_text(page, text)


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
