"""Strict settings: frozen dataclasses that a TOML table fills, where an unknown key is an error with a hint."""

import importlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from functools import cache
from inspect import Parameter
from itertools import chain, count
from numbers import Real
from typing import (
    Annotated,
    Any,
    TypeVar,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import (
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError, core_schema

from voxlate.base.errors import BadInput, nearest
from voxlate.base.groups import grouped
from voxlate.base.option import (
    ARGUMENT,
    MOST_NUMBER,
    UNIONS,
    flag_of,
    option_in,
    parameters_of,
)
from voxlate.base.optional import PROVIDERS

T = TypeVar("T")
Counts = tuple[Annotated[int, Field(gt=0)], ...]  # channels of levels, and the like
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
UNSET = ("none", "unset")
UNCLEAR = "to be right"
IN_RECIPE = "Change it in the recipe or with --set KEY=VALUE."
UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")  # types of pydantic's errors
WRONG_KIND, NO_KIND = "union_tag_invalid", "union_tag_not_found"
NO_KEY = ("missing", "missing_argument", NO_KIND)
MOST_MEANT = 3  # keys that an error suggests
MOST_WRONG = 8  # wrong keys that an error lists
LONGEST = 60  # characters of a value in an error
IMPORT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)  # "my_package.my_module:MyNet"
imported = set[str]()  # the modules that such names have named


@dataclass_transform(frozen_default=True, kw_only_default=True)
def settings(cls: type[T]) -> type[T]:
    """Make a class a frozen, keyword-only dataclass that refuses unknown keys when filled from a recipe.

    Give each key its meaning with `Annotated[type, setting("…", gt=0)]`.

    Args:
        cls: a class with a default, or none, for each annotated key.

    Returns:
        type[T]: The same class as a dataclass.

    Raises:
        ValueError: a default is mutable, such as a list.

    Example:
        >>> from voxlate.base.config import settings
        >>> @settings
        ... class Small:
        ...     width: int = 16
        >>> Small(width=8)
        Small(width=8)
    """
    cls.__pydantic_config__ = STRICT  # type: ignore[attr-defined]
    unset: Any = classmethod(_without_unset)
    cls._unset = model_validator(mode="before")(unset)  # type: ignore[attr-defined]
    return dataclass(frozen=True, kw_only=True)(cls)


def setting(description: str, **bounds: Any) -> Any:
    """The annotation of a key: its meaning, and the bounds of its value as pydantic names them (gt, le, …)."""
    if bounds.keys() & {"ge", "gt"}:
        bounds.setdefault("le", MOST_NUMBER)
    return Field(description=description, **bounds)


def fill(
    kind: type[T],
    values: dict[str, Any],
    where: str,
    change: str = IN_RECIPE,
    code: Collection[str] = (),
) -> T:
    """Fill settings of the given kind from nested tables; raises BadInput naming the key, the value and the fix.

    The text "none" or "unset" of an optional key leaves it unset. change: what to do about a wrong value, with KEY for
    its name; code: every "my_package.my_module:MyNet" that may be imported (see `imports`). No text becomes a number.
    """
    try:
        filled = adapter(kind).validate_python(values, context=code)
    except ValidationError as error:
        raise BadInput(f"{where}: {_sentences(kind, values, error.errors(), change)}") from error
    if wrong := [
        f"expected '{key}' to be a value such as {taken!r}, found {given!r}. Write it so."
        for key, given, taken in converted(values, filled)
    ]:
        raise BadInput(f"{where}: {' Also '.join(wrong)}")
    return filled


def check_options(table: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass of options from these of its values, each checked by its type and its Option.

    Raises BadInput for wrong values, each in a sentence.
    """
    try:
        return vars(adapter(table).validate_python({**given}))
    except ValidationError as error:
        by_name = grouped((f"{one['loc'][0]}", one) for one in error.errors())
        wrong = [name for name in by_name if name in given] or [*by_name]
        stated = parameters_of(table)
        said = [_option_sentence(stated[name], given, by_name[name]) for name in wrong]
        raise BadInput(" Also ".join(said)) from error


def _option_sentence(parameter: Parameter, given: Mapping[str, Any], errors: Sequence[Any]) -> str:
    """The sentence on the value of an option, which no type of a union takes."""
    name = parameter.name
    label = name if option_in(parameter).panel == ARGUMENT else flag_of(name)
    if name not in given:
        return f"{label}: expected a value, found none. Give it."
    for error in errors:
        if isinstance(own := error.get("ctx", {}).get("error"), BadInput):
            return f"{label}: {own}"
    wanted = [*dict.fromkeys(map(_wanted, errors))]
    wanted = [text for text in wanted if UNCLEAR not in text] or wanted
    return f"{label}: expected it {' or '.join(wanted)}, found {shown(given[name])}. Change it."


def shown(value: Any) -> str:
    """A value in an error, with the type of what is no text."""
    if isinstance(value, tuple) and all(isinstance(part, str) for part in value):
        value = " ".join(value)  # the words of an option on the command line
    text = " ".join(repr(value).split())
    kind = "" if isinstance(value, str) else f" ({type(value).__name__})"
    return f"{text[:LONGEST]}{'…' if len(text) > LONGEST else ''}{kind}"


def converted(given: Any, taken: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The keys of numbers and truths that were made of texts or of one another ("12" for 12), what they were, and became."""
    held = vars(taken) if is_dataclass(taken) else taken
    inner = []
    if isinstance(held, Mapping) and isinstance(given, Mapping):
        inner = [(name, given[name], held[name]) for name in given if name in held]
    elif isinstance(held, list | tuple):
        inner = [*zip(count(), given, held)]
    elif isinstance(taken, Real) and (
        isinstance(given, str) or isinstance(given, bool) != isinstance(taken, bool)
    ):
        yield key, given, taken
    for name, before, after in inner:
        yield from converted(before, after, f"{key}.{name}" if key else f"{name}")


# what fills settings of a kind and writes them; kept, for a recipe's takes 45 ms to make and is needed twice a reading
adapter: "Callable[[Any], TypeAdapter[Any]]" = cache(TypeAdapter)


def to_tables(settings_object: Any) -> dict[str, Any]:
    """Plain tables that `fill` reads back to equal settings."""
    return adapter(type(settings_object)).dump_python(
        settings_object, mode="json", exclude_none=True
    )


@dataclass(frozen=True, eq=False)
class Importable:
    """Annotation of settings that code outside the package may add to, or of a list of such names.

    In settings, kind = "my_package.my_module:MyNet" names a class; in a list of names the whole value
    "my_package.my_module:function" does a function (see `load_object`). homes: "module:Class" by kind, of settings whose
    class is imported when a recipe names its kind. settings_of: the "module:function" that gives settings for a class
    outside the package that is none itself.
    """

    homes: Mapping[str, str] = field(default_factory=dict)
    settings_of: str = ""

    def classes(self) -> list[Any]:
        """The classes of the package."""
        return [*map(load_object, self.homes.values())]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> "core_schema.CoreSchema":
        def own(value: Any, info: ValidationInfo) -> Any:
            """Settings of the package."""
            if isinstance(value, source):
                return value
            kind: Any = value.get("kind") if isinstance(value, Mapping) else None
            if not isinstance(kind, str) or kind not in self.homes:
                tags = {"expected_tags": ", ".join(sorted(self.homes))}
                raise PydanticCustomError(WRONG_KIND if kind else NO_KIND, "is of no kind", tags)
            return adapter(load_object(self.homes[kind])).validate_python(
                value, context=info.context
            )

        schema = core_schema.with_info_plain_validator_function(own)
        return core_schema.with_info_wrap_validator_function(
            self._filled,
            schema if self.homes else handler(source),
            serialization=core_schema.plain_serializer_function_ser_schema(_plain),
        )

    def _filled(self, value: Any, own: Any, info: ValidationInfo) -> Any:
        """Settings of the package, or of code outside it."""
        name = value.get("kind") if isinstance(value, dict) else value
        if is_dataclass(value) and not _is_own(type(value)):
            return value  # already filled
        if not isinstance(name, str) or not IMPORT.fullmatch(name):
            return own(value)
        code: Collection[str] = info.context or ()
        if name not in code:
            raise BadInput(needs_code([name]))
        loaded = load_object(name)
        if not isinstance(value, dict):
            return name
        kind: Any = loaded
        if not is_dataclass(loaded):
            kind = self.settings_of and load_object(self.settings_of)(loaded)
        if not kind:
            raise BadInput(
                f"expected a class made with voxlate.base.config.settings, found {name}. Decorate it with @settings."
            )
        rest = {key: entry for key, entry in value.items() if key != "kind"}
        return fill(kind, rest, name, code=code)


@dataclass(frozen=True)
class Provided:
    """What another wing provides under a name (see optional.PROVIDERS); also the annotation of settings of such a class."""

    name: str

    def load(self) -> Any:
        """What is provided; raises BadInput where the wing is not installed."""
        return load_object(PROVIDERS[self.name])

    def classes(self) -> list[Any]:
        """The class that is provided."""
        return [self.load()]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> "core_schema.CoreSchema":
        return core_schema.no_info_plain_validator_function(
            lambda value: adapter(self.load()).validate_python(value),
            serialization=core_schema.plain_serializer_function_ser_schema(to_tables),
        )


def _plain(value: Any) -> Any:
    """Settings as a table, in which the kind of a class outside the package is its name."""
    if not is_dataclass(value):
        return value
    tables = to_tables(value)
    if _is_own(type(value)):
        return tables
    kind = {"kind": kind_of(value)}  # first, and not that of a class that it inherits
    return kind | tables | kind


def load_object(name: str) -> Any:
    """The object that "my_package.my_module:MyNet" names; raises BadInput where there is no such package or name."""
    if not IMPORT.fullmatch(name):  # nothing is imported that `imports` does not list
        raise BadInput(f'expected "module:name", in plain letters, found {name!r}. Change it.')
    module, _, attribute = name.partition(":")
    imported.add(module)
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise BadInput(
            f"expected the Python module '{module}' for {name}, found none ('{error.name}' is not installed). Install it, or add its folder to PYTHONPATH."
        ) from error
    except AttributeError as error:
        raise BadInput(
            f"expected '{attribute}' in the module '{module}', found none. Check the name; what a run names in __main__ must be defined in, or imported into, the script or notebook that loads it."
        ) from error


def needs_code(names: Collection[str]) -> str:
    """The sentence by which settings are refused that need the code of these names."""
    return f"expected a model of voxlate's own parts, found one that needs the code of {', '.join(names)}. If you trust it, pass --allow-code."


def look_up(name: str, known: Mapping[str, T]) -> T:
    """The object of a name: the package's own, or the one that "module:name" imports."""
    return load_object(name) if ":" in name else known[name]


def imports(values: Any) -> list[str]:
    """Every "module:name" in plain tables, sorted: the code that filling settings from them imports."""
    return sorted(
        set(re.findall(f'"({IMPORT.pattern})"', json.dumps(values, ensure_ascii=False), re.ASCII))
    )


def kind_of(settings_object: Any) -> str:
    """The name of a settings class in recipes: its kind, or "module:Class" where it is not the package's own."""
    cls = type(settings_object)
    return str(cls.kind) if _is_own(cls) else f"{cls.__module__}:{cls.__qualname__}"


def _is_own(cls: Any) -> bool:
    return str(cls.__module__).partition(".")[0] == __name__.partition(".")[0]


def key_types(kind: Any) -> dict[str, Any]:
    """The keys of a settings class with their types (annotations kept)."""
    return get_type_hints(kind, include_extras=True)


def meaning_of(hint: Any) -> str:
    """The meaning that the annotation of a key states; "" where it states none."""
    notes = getattr(hint, "__metadata__", ())
    return next((note.description for note in notes if getattr(note, "description", None)), "")


def members(hint: Any) -> list[Any]:
    """The settings classes that a type may stand for: itself, or the members of a union, or a list's elements."""
    if get_origin(hint) is Annotated:
        inner, *notes = get_args(hint)
        lazy = [note.classes() for note in notes if isinstance(note, Importable | Provided)]
        return [*chain.from_iterable(lazy)] or members(inner)
    if get_origin(hint) in (*UNIONS, list, tuple, dict):
        return [*chain.from_iterable(map(members, get_args(hint)))]
    return [hint] if is_dataclass(hint) else []


def _without_unset(cls: Any, given: Any) -> Any:
    """A table with None for the texts "none" and "unset" of optional keys."""
    if not isinstance(given, Mapping):
        return given
    unset = [name for name, value in given.items() if isinstance(value, str) and value in UNSET]
    optional = [name for name in unset if _is_optional(key_types(cls).get(name))]
    return {**given, **dict.fromkeys(optional)}


def _is_optional(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        return _is_optional(get_args(hint)[0])
    return get_origin(hint) in UNIONS and type(None) in get_args(hint)


def _sentences(kind: Any, values: Any, errors: Sequence[Any], change: str) -> str:
    """A sentence for each wrong key, the first ones of many."""
    sentences = list(dict.fromkeys(_sentence(kind, values, error, change) for error in errors))
    listed = " Also ".join(sentences[:MOST_WRONG])
    more = len(sentences) - MOST_WRONG
    return listed if more <= 0 else f"{listed} {more} more keys are wrong."


def _sentence(kind: Any, values: Any, error: Any, change: str) -> str:
    if isinstance(own := error.get("ctx", {}).get("error"), BadInput):
        return str(own)  # the settings class states it more precisely
    place = _place(error["loc"], values)
    name = ".".join(place)
    found = error.get("input")
    if error["type"] in UNKNOWN_KEY:
        return _sentence_on_unknown(kind, place)
    if error["type"] == WRONG_KIND:
        tags = error["ctx"]["expected_tags"]
        return f"expected {name}.kind to be one of {tags}, found {found['kind']!r}. Choose one of these."
    if error["type"] in NO_KEY:
        keys = " (voxlate recipes NAME shows every key)" if change == IN_RECIPE else ""
        kind_of_it = ".kind" if error["type"] == NO_KIND else ""
        return f"expected the key '{name}{kind_of_it}', found none. Add it{keys}."
    return (
        f"expected '{name}' {_wanted(error)}, found {shown(found)}. {change.replace('KEY', name)}"
    )


def _wanted(error: Any) -> str:
    """What a value has to be: pydantic says "Input should be …", "List should have …", and few other sentences."""
    before, should, rest = what_is_wrong(error).partition("should ")
    rest = rest.partition(", unable to parse")[0]
    rest = rest.replace("greater than or equal to", "at least")
    rest = rest.replace("less than or equal to", "at most")
    return f"to {rest}" if should else f"{UNCLEAR} ({before})"


def _place(loc: Sequence[Any], values: Any) -> list[str]:
    """The place of an error as users write it: pydantic puts the kind of a table into it."""
    place = []
    for part in loc:
        held = dict(enumerate(values)) if isinstance(values, list) else values
        is_table = isinstance(held, Mapping)
        if is_table and part not in held and held.get("kind") == part:
            continue
        place.append(str(part))
        values = held.get(part) if is_table else None
    return place


def what_is_wrong(error: Any) -> str:
    """The text of one of pydantic's errors, such as "should be greater than 0"."""
    return str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")


def _sentence_on_unknown(kind: Any, place: list[str]) -> str:
    """What an unknown key may mean: one of its table with a similar name, or one of any table."""
    name = ".".join(place)
    *table, key = [part for part in place if not part.isdecimal()]  # stages have numbers
    known = grouped((path[-1], path[:-1]) for path in _places(kind))
    if table in known.get(key, ()):
        return f"expected a known key, found '{name}', which another kind of this table has. Drop it, or change the kind."
    here = [one for one, tables in known.items() if table in tables]
    # names of modalities are no keys
    here = here or [one for one, tables in known.items() if table[:-1] in tables]
    meant = [[*place[:-1], one] for one in nearest(key, here)]
    for one in nearest(key, known)[:1]:
        meant = meant or [[*path, one] for path in sorted(known[one], key=len)]
    hint = f"Known keys here: {', '.join(sorted(here))}."
    if meant:
        few = dict.fromkeys(map(".".join, meant))
        hint = f"Did you mean {' or '.join(map(repr, [*few][:MOST_MEANT]))}?"
    return f"expected a known key, found '{name}'. {hint}"


def _places(hint: Any, table: Sequence[str] = ()) -> Iterator[list[str]]:
    """Every key below settings of a type, as ["train", "optimiser", "lr"]."""
    for owner in members(hint):
        for name, inner in key_types(owner).items():
            yield [*table, name]
            yield from _places(inner, [*table, name])
