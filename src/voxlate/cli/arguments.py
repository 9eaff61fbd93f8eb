"""Arguments of the commands in Python, checked by their annotations: a wrong one is one sentence, whatever it is."""

import functools
import inspect
import math
import numbers
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

import numpy as np

from voxlate.options.option import Option, option_of
from voxlate.system.errors import BadInput, did_you_mean, system_refusal

P = ParamSpec("P")
T = TypeVar("T")
WORDS = {
    float: "a number",
    int: "a whole number",
    bool: "True or False",
    str: "a text",
    Path: "a path",
    type(None): "None",
}
INTERNAL = (
    "options",
    "head",
    "pace",
    "begun",
    "limits",
    "elsewhere",
)  # that commands see to, not their callers
LONGEST = 60  # characters of a value in a message


def checked(
    command: Callable[P, T],
    *options_of: Callable[..., Any],
    others: bool = False,
    objects: Mapping[str, Any] | None = None,
) -> Callable[P, T]:
    """The command, which raises BadInput for arguments of other types than it states, and for errors of the system.

    options_of: options dataclasses and functions that take the keywords (**options) of the command: they state the
    types, and the command's signature lists them. others: further keywords are passed on as they are. objects: by
    name, the types of options that the dataclasses leave open, because they are heavy to import.
    """
    signature, hints = inspect.signature(command), typing.get_type_hints(command)
    takes_any = any(
        one.kind is inspect.Parameter.VAR_KEYWORD for one in signature.parameters.values()
    )
    hints_of_options = {
        name: hint
        for one in options_of
        for name, hint in typing.get_type_hints(one, include_extras=True).items()
    }
    hints_of_options |= objects or {}
    passed_on = _options_of(options_of, hints_of_options)
    named = dict.fromkeys((*signature.parameters, *passed_on))
    known = [name for name in named if name not in INTERNAL]

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs:
            if name not in known and not others:
                hint = did_you_mean(name, known) or f"Its arguments are {', '.join(known)}."
                raise BadInput(
                    f"{command.__name__}: expected a known argument, found '{name}'. {hint}"
                )
        bound = signature.bind(*args, **kwargs)
        given = bound.arguments
        left_over = given.pop("options", {}) if takes_any else {}
        given.update(
            {name: _stated(name, value, hints.get(name, Any)) for name, value in given.items()}
        )
        if left_over:
            stated = {
                name: (value, hints_of_options.get(name, Any)) for name, value in left_over.items()
            }
            given["options"] = {name: _stated(name, *one) for name, one in stated.items()}
        try:
            return command(*bound.args, **bound.kwargs)
        except OSError as error:
            raise system_refusal(error) from error

    if options_of:
        own = [one for name, one in signature.parameters.items() if name != "options"]
        more = [
            one
            for name, one in passed_on.items()
            if name in known and name not in signature.parameters
        ]
        rest = [signature.parameters["options"]] if others else []
        run.__signature__ = signature.replace(parameters=[*own, *more, *rest])  # type: ignore[attr-defined]
    return run


def takes(
    *options_of: Callable[..., Any], others: bool = False, objects: Mapping[str, Any] | None = None
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """The decorator of a command whose arguments are checked; see checked."""
    return lambda command: checked(command, *options_of, others=others, objects=objects)


def _options_of(
    owners: Iterable[Callable[..., Any]], hints: Mapping[str, Any]
) -> dict[str, inspect.Parameter]:
    """The keywords of functions, and the fields of options dataclasses, by name, with their plain types."""
    found = dict[str, inspect.Parameter]()
    for owner in owners:
        for name, one in inspect.signature(owner).parameters.items():
            if inspect.isclass(owner) or one.kind is inspect.Parameter.KEYWORD_ONLY:
                kind = inspect.Parameter.KEYWORD_ONLY
                found[name] = one.replace(kind=kind, annotation=hints.get(name, one.annotation))
    return found


def _stated(name: str, value: Any, hint: Any) -> Any:
    """An argument as its annotation states it; raises BadInput where it is of another type.

    A value that the command line takes for this option is read as there, for example noise="shared".
    """
    if not _fits(value, hint):
        value = _as_on_command_line(value, option_of(hint))
    if not _fits(value, hint):
        raise BadInput(f"{name}: expected {_words(hint)}, found {_found(value)}. Change it.")
    _check_range(name, value, option_of(hint))
    return _plain(value, hint)


def _as_on_command_line(value: Any, option: Option | None) -> Any:
    """A text, or one value of a repeatable option, as the command line reads it; other values as they are."""
    if option is None or not isinstance(value, str | Path | list | tuple):
        return value
    repeatable = get_origin(option.takes) is list
    given = [value] if repeatable and isinstance(value, str | Path) else value
    if option.takes is None or not _fits(given, option.takes):
        return value
    return given if option.read is None else option.read(given)


def _check_range(name: str, value: Any, option: Option | None) -> None:
    """Raise BadInput for a number out of the range that the option states."""
    if option is None or isinstance(value, bool) or not isinstance(value, numbers.Real):
        return
    number = float(value)
    if option.least is not None and number < option.least:
        raise BadInput(f"{name}: expected at least {option.least:g}, found {value}. Change it.")
    if option.most is not None and number > option.most:
        raise BadInput(f"{name}: expected at most {option.most:g}, found {value}. Change it.")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type; a list may stand for a tuple, and whole numbers for others."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any or isinstance(hint, TypeVar | str) or hint is inspect.Parameter.empty:
        return True
    if origin is Annotated:
        return _fits(value, inner[0])
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return isinstance(value, str | int) and value in inner
    if hint is float:
        return (
            isinstance(value, numbers.Real)
            and not isinstance(value, bool)
            and not math.isnan(float(value))
        )
    if hint is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if hint is bool:
        return isinstance(value, bool | np.bool_)
    if origin is tuple:
        return _fits_tuple(value, inner)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        keys, values = inner
        return isinstance(value, Mapping) and all(
            _fits(k, keys) and _fits(v, values) for k, v in value.items()
        )
    if isinstance(origin, type) and issubclass(origin, Collection | Iterable):
        several = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
        return several and all(_fits(one, inner[0]) for one in value)
    if origin is not None:
        return callable(value)
    return value is None if hint in (None, type(None)) else _is_instance(value, hint)


def _plain(value: Any, hint: Any) -> Any:
    """Python's own number for one of NumPy's, and a tuple of them where one is stated."""
    if get_origin(hint) is Annotated:
        return _plain(value, get_args(hint)[0])
    stated = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if isinstance(value, list | np.ndarray) and any(get_origin(one) is tuple for one in stated):
        return tuple(_plain(one, Any) for one in value)
    return value.item() if isinstance(value, np.generic) else value


def _fits_tuple(value: Any, inner: tuple[Any, ...]) -> bool:
    if not isinstance(value, tuple | list | np.ndarray):
        return False
    expected = [inner[0]] * len(value) if len(inner) == 2 and inner[1] is Ellipsis else [*inner]
    return len(value) == len(expected) and all(
        _fits(one, hint) for one, hint in zip(value, expected)
    )


def _is_instance(value: Any, hint: Any) -> bool:
    if not getattr(hint, "_is_protocol", False):
        return isinstance(value, hint)
    names = {*vars(hint), *getattr(hint, "__annotations__", {})}  # of a protocol: what it must have
    return all(hasattr(value, name) for name in names if not name.startswith("_"))


def _words(hint: Any) -> str:
    """An annotated type in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        option = option_of(hint)
        taken = None if option is None or option.takes is None else _words(option.takes)
        plain = _words(inner[0])
        return plain if taken in (None, plain) else f"{taken} or {plain}"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_words(one) for one in inner if one is not type(None)))
    if origin is Literal:
        return ", ".join(map(repr, inner))
    if origin is tuple:
        return f"{len(inner)} values" if Ellipsis not in inner else f"a list ({_words(inner[0])})"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a dict ({_words(inner[0])}: {_words(inner[1])})"
    if isinstance(origin, type) and issubclass(origin, Collection | Iterable):
        return f"a list ({_words(inner[0])})"
    if origin is not None or hint is Callable:
        return "a function"
    return WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def _found(value: Any) -> str:
    text = " ".join(repr(value).split())
    return f"{text[:LONGEST]}{'…' if len(text) > LONGEST else ''} ({type(value).__name__})"
