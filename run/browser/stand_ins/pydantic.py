"""pydantic in a browser: what a synthesis calls of it, in Python alone. It fills dataclasses and compares types and keys.

Pyodide's build of pydantic-core is on no registry for a Pyodide that has NumPy and SciPy there (see docs/design/decisions.md).
Bounds and patterns are not compared: a model's files were checked when it was exported, and have digests.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

StrictStr = str
ValidationInfo = Any
ConfigDict = dict
UNIONS = (typing.Union, types.UnionType)
UNCHECKED = (object, Any)


class ValidationError(ValueError):
    """A value of another type or another key; errors: as those of pydantic, the first one alone."""

    def __init__(self, message: str, place: tuple[Any, ...], value: Any, kind: str) -> None:
        super().__init__(message)
        self.error = {"msg": message, "loc": place, "input": value, "type": kind}

    def errors(self, **options: Any) -> list[dict[str, Any]]:
        """What is wrong."""
        return [self.error]


class Field:
    """The annotation of a value: its meaning, and bounds, which are not checked."""

    def __init__(self, *default: Any, description: str = "", **bounds: Any) -> None:
        self.description = description


StringConstraints = Field


def model_validator(**mode: Any) -> Callable[[Any], Any]:
    """A decorator that leaves a function as it is, which nobody calls: files name no key that is unset."""

    def same(function: Any) -> Any:
        """The function."""
        return function

    return same


class TypeAdapter:
    """Fills a type from plain values; raises ValidationError."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind

    def validate_json(self, text: str | bytes, **rules: Any) -> Any:
        """The object that JSON states."""
        return self.validate_python(json.loads(text))

    def validate_python(self, value: Any, context: Any = None) -> Any:
        """The object that plain values state."""
        return fill(self.kind, value, ())


def fill(kind: Any, value: Any, place: tuple[Any, ...]) -> Any:
    """A value as an object of a type; place: of the value in what is read."""
    origin, options = get_origin(kind), get_args(kind)
    if origin in (typing.Annotated, typing.Required, typing.NotRequired):
        return fill(options[0], value, place)
    if kind in UNCHECKED:
        return value
    if origin is Literal:
        return _check(value in options and type(value) is not bool, kind, value, place)
    if origin in UNIONS:
        return _fill_one_of(options, value, place)
    if dataclasses.is_dataclass(kind):
        return _fill_keys(kind, value, place)
    if typing.is_typeddict(kind):
        _check(isinstance(value, dict), kind, value, place)
        hints = typing.get_type_hints(kind, include_extras=True)
        return {key: fill(hints[key], entry, (*place, key)) for key, entry in value.items()}
    if origin in (list, tuple, dict) or kind in (list, tuple, dict):
        return _fill_several(origin or kind, options, value, place)
    if kind is float:
        return float(_check(type(value) in (int, float), kind, value, place))
    return _check(type(value) is (type(None) if kind is None else kind), kind, value, place)


def _check(sound: bool, kind: Any, value: Any, place: tuple[Any, ...]) -> Any:
    if not sound:
        raise ValidationError(f"should be {getattr(kind, '__name__', kind)}", place, value, "type")
    return value


def _fill_one_of(options: tuple[Any, ...], value: Any, place: tuple[Any, ...]) -> Any:
    """A value as the first of several types that it fits; of settings, the one of its kind."""
    if isinstance(value, dict) and "kind" in value:
        named = tuple(one for one in options if getattr(one, "kind", None) == value["kind"])
        options = named or options
    for option in options[:-1]:
        try:
            return fill(option, value, place)
        except ValidationError:
            continue
    return fill(options[-1], value, place)


def _fill_keys(kind: Any, value: Any, place: tuple[Any, ...]) -> Any:
    if isinstance(value, kind):
        return value
    _check(isinstance(value, dict), kind, value, place)
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = dataclasses.fields(kind)
    known = {field.name for field in fields if field.init}
    for key in value.keys() - known:
        raise ValidationError("unexpected", (*place, key), value[key], "extra_forbidden")
    for field in fields:
        needed = field.default is field.default_factory is dataclasses.MISSING
        if needed and field.name not in value:
            raise ValidationError("missing", (*place, field.name), value, "missing")
    return kind(**{key: fill(hints[key], entry, (*place, key)) for key, entry in value.items()})


def _fill_several(kind: Any, options: tuple[Any, ...], value: Any, place: tuple[Any, ...]) -> Any:
    if kind is dict:
        _check(isinstance(value, dict), kind, value, place)
        of_key, of_entry = options or (Any, Any)
        plain = get_args(of_key)[0] if get_origin(of_key) is typing.Annotated else of_key
        number = {float: float, int: int}.get(plain)  # keys of JSON are texts
        return {
            (number(key) if number else key): fill(of_entry, entry, (*place, key))
            for key, entry in value.items()
        }
    _check(isinstance(value, (list, tuple)), kind, value, place)
    if kind is tuple and options and options[-1] is not ...:
        _check(len(value) == len(options), f"{len(options)} values", value, place)
    else:
        options = (options[0] if options else Any,) * len(value)
    return kind(
        fill(option, entry, (*place, number))
        for number, (option, entry) in enumerate(zip(options, value))
    )
