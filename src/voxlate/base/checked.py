"""Values of options and arguments, checked by their declarations: a wrong one is one sentence, which is the same at every door."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from voxlate.base.config import adapter, converted
from voxlate.base.errors import BadInput
from voxlate.base.option import (
    ARGUMENT,
    PYTHON,
    Object,
    field_types,
    flag_of,
    members,
    option_of,
)

LONGEST = 60  # characters of a value in a message
WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
}


def checked(table: Any, given: Mapping[str, Any], texts: bool = False) -> dict[str, Any]:
    """The fields of a dataclass from these of its values, each checked by its type and its Option.

    texts: whether numbers may be texts, as on the command line. Raises BadInput for the first wrong value.
    """
    plain = {name: _plain(value) for name, value in given.items()}
    types_of = field_types(table)
    try:
        values = vars(adapter(table).validate_python(plain))
    except ValidationError as error:
        wrong = {str(one["loc"][0]): one.get("ctx", {}).get("error") for one in error.errors()}
        name = min(wrong, key=lambda name: name not in plain)
        label = _label(name, types_of[name])
        if name not in plain:
            raise BadInput(f"{label}: expected a value, found none. Give it.") from error
        if isinstance(wrong[name], BadInput):
            raise BadInput(f"{label}: {wrong[name]}") from error
        expected = _expected(types_of[name])
    else:
        taken = {name: values[name] for name in plain if not _is_read(plain[name], types_of[name])}
        for key, _, after in () if texts else converted(plain, taken):
            name, expected = key.partition(".")[0], f"a value such as {after!r}"
            break
        else:
            return values
    raise BadInput(
        f"{_label(name, types_of[name])}: expected {expected}, found {_show(given[name])}. Change it."
    )


def _is_read(value: Any, hint: Any) -> bool:
    """Whether a value was one text, of which its Option made another value."""
    option = option_of(hint)
    return isinstance(value, str) and option is not None and option.read is not None


def _label(name: str, hint: Any) -> str:
    """The name of an option, or of an argument, in a message."""
    option = option_of(hint)
    return name if option is None or option.panel in (ARGUMENT, PYTHON) else flag_of(name)


def _expected(hint: Any) -> str:
    """The values of a type."""
    words = list[str]()
    for kind in members(hint):
        origin = get_origin(kind)
        homes = [
            note.home for note in getattr(kind, "__metadata__", ()) if isinstance(note, Object)
        ]
        if homes:
            words.append(f"a {homes[0].partition(':')[2]}")
        elif origin is Literal:
            words.append(f"one of {', '.join(map(repr, get_args(kind)))}")
        elif origin is tuple:
            words.append(f"{len(get_args(kind))} numbers")
        elif origin is not None:
            words.append("a table" if issubclass(origin, Mapping) else "a list")
        elif kind in WORDS:
            words.append(WORDS[kind])
    return " or ".join(words)


def _plain(value: Any) -> Any:
    """Python's own numbers and lists for those of NumPy; scans and other values as they are; no bytes, which are no text."""
    if type(value).__module__ == "numpy" and hasattr(value, "tolist") and value.ndim < 2:
        return value.tolist()
    return object() if isinstance(value, bytes) else value


def _show(value: Any) -> str:
    """A value and its type, for a message; of arrays the shapes and types."""
    if shape := getattr(value, "shape", ()):  # numbers of NumPy have an empty one
        return f"{type(value).__name__} of the shape {tuple(shape)}"
    if isinstance(value, tuple) and any(getattr(part, "shape", ()) for part in value):
        return f"({', '.join(map(_show, value))})"
    if isinstance(value, list | tuple) and value and all(isinstance(part, str) for part in value):
        return repr(" ".join(value))  # several texts of the command line
    text = " ".join(repr(value).split())
    kind = "" if isinstance(value, str) else f" ({type(value).__name__})"
    return f"{text[:LONGEST]}{'…' if len(text) > LONGEST else ''}{kind}"
