"""Strict settings: frozen dataclasses that a TOML table fills, where an unknown key is an error with a hint."""

import importlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from functools import cache
from inspect import Parameter
from itertools import chain
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
)
from pydantic_core import PydanticCustomError, core_schema, to_json

from voxlate.base.errors import BadInput, nearest
from voxlate.base.groups import grouped
from voxlate.base.messages import reworded
from voxlate.base.option import (
    ARGUMENT,
    MOST_NUMBER,
    UNIONS,
    UNSET,
    flag_of,
    option_in,
    parameters_of,
)
from voxlate.base.optional import PROVIDERS

T = TypeVar("T")
# channels of levels, and the like; where a validator of ours has read a table, it is a list
Counts = Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(strict=False)]
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)
IN_RECIPE = "Change it in the recipe or with --set KEY=VALUE."
UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")  # types of pydantic's errors
WRONG_KIND, NO_KIND = "union_tag_invalid", "union_tag_not_found"
NO_KEY = ("missing", "missing_argument", NO_KIND)
MOST_WRONG = 8  # wrong keys that an error lists
LONGEST = 60  # characters of a value in an error
IMPORT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)  # "my_package.my_module:MyNet"
imported = set[str]()  # the packages of modules that such names have named


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

    The text "unset" leaves an optional key unset. change: what to do about a wrong value, with KEY for its name; code:
    every "my_package.my_module:MyNet" that may be imported (see `imports`). No text becomes a number.
    """
    stated = reworded(values, _stated)
    try:
        return from_plain(kind, stated, code)
    except ValidationError as error:
        said = dict.fromkeys(_sentence(kind, stated, one, change) for one in error.errors())
    raise BadInput(f"{where}: {' Also '.join([*said][:MOST_WRONG])}")


def _stated(text: str) -> str | None:
    """The text that a key states; None where it is to be unset, because TOML has no word for that."""
    return None if text == UNSET else text


def from_plain(kind: Any, values: Any, code: Collection[str] = ()) -> Any:
    """Plain values as an object of a kind; as in JSON a list is a tuple, and else nothing is converted."""
    return adapter(kind).validate_json(to_json(values, fallback=str), context=code)


def check_options(table: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass of options from these of its values, each checked by its type and its Option.

    Raises BadInput for wrong values, each in a sentence.
    """
    try:
        return vars(adapter(table).validate_python({**given}))
    except ValidationError as error:
        by_name = grouped((f"{one['loc'][0]}", one) for one in error.errors())
        stated = parameters_of(table)
        said = [_option_sentence(stated[name], given, one[0]) for name, one in by_name.items()]
        raise BadInput(" Also ".join(said)) from error


def _option_sentence(parameter: Parameter, given: Mapping[str, Any], error: Any) -> str:
    """The sentence on the value of an option."""
    name = parameter.name
    label = name if option_in(parameter).panel == ARGUMENT else flag_of(name)
    if error["type"] in NO_KEY:
        return f"{label}: expected a value, found none. Give it."
    if own := _own_error(error):
        return f"{label}: {own}"
    return f"{label}: expected it {_wanted(error)}, found {shown(given[name])}. Change it."


def shown(value: Any) -> str:
    """A value in an error, with the type of what is no text."""
    text = " ".join(repr(value).split())
    kind = "" if isinstance(value, str) else f" ({type(value).__name__})"
    return f"{text[:LONGEST]}{'…' if len(text) > LONGEST else ''}{kind}"


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
        def filled(value: Any, own: Any, info: ValidationInfo) -> Any:
            """Settings of the package, or of code outside it."""
            kind = value.get("kind") if isinstance(value, Mapping) else value
            if isinstance(kind, str) and IMPORT.fullmatch(kind):
                return self._of_user(value, kind, info.context or ())
            if is_dataclass(value) and not _is_own(type(value)):
                return value  # already filled
            if not self.homes:
                return own(value)
            if not isinstance(kind, str) or kind not in self.homes:
                tags = {"tag": f"{kind}", "expected_tags": ", ".join(sorted(self.homes))}
                raise PydanticCustomError(WRONG_KIND if kind else NO_KIND, "is of no kind", tags)
            return from_plain(load_object(self.homes[kind]), value, info.context or ())

        return core_schema.with_info_wrap_validator_function(
            filled,
            core_schema.any_schema() if self.homes else handler(source),
            serialization=core_schema.plain_serializer_function_ser_schema(_plain),
        )

    def _of_user(self, value: Any, name: str, code: Collection[str]) -> Any:
        """Settings of a class outside the package; of a list of names, the name."""
        if name not in code:
            raise BadInput(needs_code([name]))
        kind: Any = load_object(name)
        if not isinstance(value, dict):
            return name
        if not is_dataclass(kind):
            kind = self.settings_of and load_object(self.settings_of)(kind)
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
            lambda value: from_plain(self.load(), value),
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
    imported.add(package_of(module))
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
    return package_of(cls.__module__) == package_of(__name__)


def package_of(module: str) -> str:
    """The first part of a module's name."""
    return module.partition(".")[0]


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


def _sentence(kind: Any, values: Any, error: Any, change: str) -> str:
    """The sentence on a wrong key; that of the settings class, if it has one, is more precise."""
    place = _place(error["loc"], values)
    name = ".".join(place)
    if own := _own_error(error):
        return own
    if error["type"] in UNKNOWN_KEY:
        *tables, key = place
        table = [part for part in tables if not part.isdecimal()]  # stages have numbers
        known = [*_places(kind)]
        here = [path[-1] for path in known if path[:-1] in (table, table[:-1])]  # or of a modality
        meant = [[*tables, near] for near in nearest(key, here)]
        meant = meant or [path for path in known if path[-1] == key]
        hint = f"Known keys here: {', '.join(sorted({*here}))}."
        if meant:
            hint = f"Did you mean '{'.'.join(meant[0])}'?"
        return f"expected a known key, found '{name}'. {hint}"
    if error["type"] == WRONG_KIND:
        tags, tag = error["ctx"]["expected_tags"], error["ctx"]["tag"]
        return f"expected {name}.kind to be one of {tags}, found {tag!r}. Choose one of these."
    if error["type"] in NO_KEY:
        kind_of_it = ".kind" if error["type"] == NO_KIND else ""
        return f"expected the key '{name}{kind_of_it}', found none. Add it."
    advice = change.replace("KEY", name)
    return f"expected '{name}' {_wanted(error)}, found {shown(error.get('input'))}. {advice}"


def _own_error(error: Any) -> str:
    """The sentence of a BadInput that a check of ours raised; "" for an error of pydantic's."""
    own = error.get("ctx", {}).get("error")
    return f"{own}" if isinstance(own, BadInput) else ""


def _wanted(error: Any) -> str:
    """What a value has to be: pydantic says "Input should be …", "List should have …", and few other sentences."""
    before, should, rest = str(error["msg"]).partition("should ")
    rest = rest.replace("greater than or equal to", "at least")
    rest = rest.replace("less than or equal to", "at most")
    return f"to {rest}" if should else f"to be right ({before})"


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


def _places(hint: Any, table: Sequence[str] = ()) -> Iterator[list[str]]:
    """Every key below settings of a type, as ["train", "optimiser", "lr"]."""
    for owner in members(hint):
        for name, inner in key_types(owner).items():
            yield [*table, name]
            yield from _places(inner, [*table, name])
