"""Values of options and arguments, checked by their annotations: a wrong one is one sentence, whatever it is.

The command line and the functions in Python both check here, so that they refuse the same values in the same sentence.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import ConfigDict, InstanceOf, TypeAdapter, ValidationError

from voxlate.base.config import converted
from voxlate.base.errors import BadInput
from voxlate.base.options.option import (
    UNIONS,
    Option,
    check_range,
    field_types,
    option_of,
    text_type,
    without_notes,
)

T = TypeVar("T")
WORDS = {
    float: "a number",
    int: "a whole number",
    bool: "True or False",
    str: "a text",
    Path: "a path",
    type(None): "None",
}
Reader = Callable[[Any, Any, Option], Any]
LONGEST = 60  # characters of a value in a message
# An empty text would stand for the current folder, or for no choice.
CONFIG = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False, str_min_length=1)


def check_options(table: type[T], options: T | None, changes: Mapping[str, Any]) -> T:
    """The options of a command with changes of their fields, every value checked.

    Raises BadInput for a name that is no field, a value of another type or out of its range, and for a field without a
    default that has no value.
    """
    hints = field_types(table)  # type: ignore[arg-type]
    if options is not None and not isinstance(options, table):
        raise BadInput(
            f"options: expected {table.__name__}, found {_show(options)}. Give its fields by name, or an object of it."
        )
    values = {} if options is None else dict(vars(options))
    values |= changes
    for field in fields(table):  # type: ignore[arg-type]
        name = field.name
        if name in values and values[name] is not field.default:
            values[name] = check_value(name, values[name], hints[name])
    for field in fields(table):  # type: ignore[arg-type]
        if field.default is MISSING and field.name not in values:
            raise BadInput(f"{field.name}: expected a value, found none. Give it.")
    return table(**values)


def check_value(name: str, value: Any, hint: Any) -> Any:
    """A value as its annotation states it; raises BadInput where it is of another type, or out of range.

    A text, or one value of a repeatable option, is read as on the command line where the field takes no texts; no text is
    a number, and a number is no truth.
    """
    return _check(name, value, hint, (_as_stated, partial(_as_on_command_line, take=_take)))


def read_text(name: str, value: Any, hint: Any) -> Any:
    """The value of an option from its text on the command line, or from several; raises BadInput as check_value does."""
    return _check(name, value, hint, (_as_on_command_line,))


def _check(name: str, value: Any, hint: Any, readers: Sequence[Reader]) -> Any:
    option = option_of(hint) or Option("")
    for read in readers:
        try:
            taken = read(_plain(value), hint, option)
            if option.check is not None and taken is not None:
                option.check(taken)
        except (ValidationError, TypeError):
            continue
        except BadInput as error:  # of the option's declaration, which does not know its name
            raise BadInput(f"{name}: {error}") from error
        check_range(name, taken, option)
        return taken
    if isinstance(value, tuple) and all(isinstance(part, str) for part in value):
        value = " ".join(value)  # of an option with several values
    expected = text_type(hint) if isinstance(value, str) else hint
    raise BadInput(f"{name}: expected {_words(expected)}, found {_show(value)}. Change it.")


def _as_stated(value: Any, hint: Any, option: Option) -> Any:
    """The value as the annotation states it; Any stands for a text, a path, or an object of a class."""
    bare = without_notes(hint)
    members = get_args(bare) if get_origin(bare) in UNIONS else (bare,)
    if option.objects and Any in members and type(value).__module__ == "builtins":
        others = (member for member in members if member is not Any)
        bare = Union[(*others, Path, str)]
    if isinstance(value, bytes):
        raise TypeError("bytes are no text")
    return _take(bare, value)


def _take(kind: Any, value: Any) -> Any:
    """A value as a type; raises TypeError where a number or a truth would be made of another type."""
    taken = _take_text(kind, value)
    if any(converted(value, taken)):
        raise TypeError("another type")
    return taken


def _take_text(kind: Any, value: Any) -> Any:
    """A type's value from a text."""
    return adapter(kind).validate_python(value)


def _as_on_command_line(
    value: Any, hint: Any, option: Option, take: Callable[[Any, Any], Any] = _take_text
) -> Any:
    """The value as the command line reads it from texts."""
    if not isinstance(value, str | Path | list | tuple):
        raise TypeError("no text")
    kind = text_type(hint)
    several = get_origin(kind) is list and isinstance(value, str | Path)
    taken = take(kind, [value] if several else value)
    return taken if option.read is None else option.read(taken)


@functools.cache
def adapter(hint: Any) -> TypeAdapter[Any]:
    """What checks values of a type; an object of a class of voxlate is taken as it is."""
    return TypeAdapter(_without_own(hint), config=CONFIG)


def _without_own(hint: Any) -> Any:
    """A type in which classes of voxlate stand for their objects, because pydantic would look inside of these."""
    if isinstance(hint, type) and hint.__module__.partition(".")[0] == "voxlate":
        return InstanceOf[hint]  # type: ignore[misc, valid-type]
    if get_origin(hint) in UNIONS:
        return Union[tuple(_without_own(member) for member in get_args(hint))]  # noqa: UP007
    return hint


def _plain(value: Any) -> Any:
    """Python's own numbers and lists for those of NumPy; scans and other values as they are."""
    if type(value).__module__ == "numpy" and hasattr(value, "tolist") and value.ndim < 2:
        return value.tolist()
    return value


def _words(hint: Any) -> str:
    """An annotated type in words, which may be a text of the annotation."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        option = option_of(hint) or Option("")
        if isinstance(inner[1], str):
            return inner[1]
        taken = "" if option.takes is None else _words(option.takes)
        plain = option.objects or _words(inner[0])
        return plain if taken in plain else f"{taken} or {plain}"
    if origin in UNIONS:
        members = (member for member in inner if member is not type(None))
        return " or ".join(dict.fromkeys(map(_words, members)))
    if origin is Literal:
        return ", ".join(map(repr, inner))
    if origin is tuple:
        return f"{len(inner)} numbers" if Ellipsis not in inner else f"a list ({_words(inner[0])})"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        value = "a value" if get_origin(inner[1]) in UNIONS else _words(inner[1])
        return f"a dict ({_words(inner[0])}: {value})"
    if isinstance(origin, type) and issubclass(origin, Iterable):
        return f"a list ({_words(inner[0])})"
    if origin is not None:
        return "a function"
    return WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def _show(value: Any) -> str:
    """A value and its type, for a message; of arrays the shapes and types."""
    if shape := getattr(value, "shape", ()):  # numbers of NumPy have an empty one
        return f"{type(value).__name__} of the shape {tuple(shape)}"
    if isinstance(value, tuple) and any(getattr(part, "shape", ()) for part in value):
        return f"({', '.join(map(_show, value))})"
    text = " ".join(repr(value).split())
    kind = "" if isinstance(value, str) else f" ({type(value).__name__})"
    return f"{text[:LONGEST]}{'…' if len(text) > LONGEST else ''}{kind}"
