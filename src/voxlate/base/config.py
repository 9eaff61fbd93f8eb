"""Strict settings: frozen dataclasses that a TOML table fills, where an unknown key is an error with a hint."""

import importlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache, partial
from itertools import chain, count
from numbers import Real
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import (
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import SchemaValidator, core_schema

from voxlate.base.errors import BadInput, nearest
from voxlate.base.lazy import PROVIDERS
from voxlate.base.option import MOST_NUMBER, UNIONS

T = TypeVar("T")
Counts = tuple[Annotated[int, Field(gt=0)], ...]  # channels of levels, and the like
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
UNSET = ("none", "unset")
IN_RECIPE = "Change it in the recipe or with --set KEY=VALUE."
UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")  # types of pydantic's errors
NO_KEY = ("missing", "missing_argument")
MOST_MEANT = 3  # keys that an error suggests
MOST_WRONG = 8  # wrong keys that an error lists
IMPORT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)  # "my_package.my_module:MyNet"


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

    The text "none" or "unset" of an optional key leaves it unset. change: what to do about a wrong value, with KEY for
    its name; code: every "my_package.my_module:MyNet" that may be imported (see `imports`). No text becomes a number.
    """
    try:
        filled = adapter(kind).validate_python(_without_unset(kind, values), context=code)
    except ValidationError as error:
        raise BadInput(f"{where}: {_sentences(kind, error.errors(), change)}") from error
    if wrong := [
        f"expected '{key}' to be a value such as {taken!r}, found {given!r}. Write it so."
        for key, given, taken in converted(values, filled)
    ]:
        raise BadInput(f"{where}: {' Also '.join(wrong)}")
    return filled


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


@dataclass(frozen=True)
class Importable:
    """Annotation of a union of settings, or of a list of names, that code outside the package may add to.

    In a union, kind = "my_package.my_module:MyNet" names a settings class; in a list of names the whole value
    "my_package.my_module:function" does a function (see `load_object`).
    """

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> "core_schema.CoreSchema":
        inner = handler(source)
        written = core_schema.wrap_serializer_function_ser_schema(_plain, schema=inner)
        return core_schema.with_info_wrap_validator_function(
            _fill_importable, inner, serialization=written
        )


@dataclass(frozen=True, eq=False)
class Kinds:
    """Annotation of settings of which the key "kind" names the class, which is imported when a recipe names it.

    homes: "module:Class" by kind. settings_of: the "module:function" that gives settings for a class outside the package
    that is none itself.
    """

    homes: Mapping[str, str]
    settings_of: str = ""

    def classes(self, value: Any = None) -> list[Any]:
        """The class that a table names, or all where it names none of them."""
        kind = value.get("kind") if isinstance(value, dict) else None
        named = [name for name in self.homes if name == kind] or self.homes
        return [load_object(self.homes[name]) for name in named]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> "core_schema.CoreSchema":
        def own(value: Any, info: ValidationInfo) -> Any:
            """Settings of the package; the path of an error has the kind."""
            if isinstance(value, source):
                return value
            known = {kind.kind: adapter(kind).core_schema for kind in self.classes(value)}
            schema = SchemaValidator(core_schema.tagged_union_schema(known, "kind"))
            return schema.validate_python(value, context=info.context)

        def filled(value: Any, info: ValidationInfo) -> Any:
            """Settings of the package, or of code outside it."""
            inner = partial(own, info=info)
            return _fill_importable(value, inner, info, self.settings_of)

        written = partial(_plain, inner=to_tables)
        return core_schema.with_info_plain_validator_function(
            filled, serialization=core_schema.plain_serializer_function_ser_schema(written)
        )


@dataclass(frozen=True)
class Provided:
    """What another wing provides under a name (see lazy.PROVIDERS); also the annotation of settings of such a class."""

    name: str

    def load(self) -> Any:
        """What is provided; raises BadInput where the wing is not installed."""
        return load_object(PROVIDERS[self.name])

    def classes(self, _: Any) -> list[Any]:
        """The class that is provided."""
        return [self.load()]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> "core_schema.CoreSchema":
        return core_schema.no_info_plain_validator_function(
            lambda value: adapter(self.load()).validate_python(value),
            serialization=core_schema.plain_serializer_function_ser_schema(to_tables),
        )


def _fill_importable(value: Any, inner: Any, info: ValidationInfo, settings_of: str = "") -> Any:
    name = value.get("kind") if isinstance(value, dict) else value
    if is_dataclass(value) and not _is_own(type(value)):
        return value  # already filled
    if not isinstance(name, str) or not IMPORT.fullmatch(name):
        return inner(value)
    code: Collection[str] = info.context or ()
    if name not in code:
        raise BadInput(needs_code([name]))
    loaded = load_object(name)
    if not isinstance(value, dict):
        return name
    made = settings_of and load_object(settings_of)(loaded)
    kind = loaded if is_dataclass(loaded) else made
    if not kind:
        raise BadInput(
            f"expected a class made with voxlate.base.config.settings, found {name}. Decorate it with @settings."
        )
    rest = {key: entry for key, entry in value.items() if key != "kind"}
    return fill(cast(type, kind), rest, name, code=code)


def _plain(value: Any, inner: Any) -> Any:
    if isinstance(value, str):
        return value
    if _is_own(type(value)):
        return inner(value)
    kind = {"kind": kind_of(value)}  # first, and not that of a class that it inherits
    return kind | to_tables(value) | kind


def load_object(name: str) -> Any:
    """The object that "my_package.my_module:MyNet" names; raises BadInput where there is no such package or name."""
    if not IMPORT.fullmatch(name):  # nothing is imported that `imports` does not list
        raise BadInput(f'expected "module:name", in plain letters, found {name!r}. Change it.')
    module, _, attribute = name.partition(":")
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


def members(kind: Any) -> tuple[Any, ...]:
    """The settings classes that a type may stand for: itself, or the members of a union, or a list's elements."""
    origin = get_origin(kind)
    if origin in (Annotated, *UNIONS, list, tuple, dict):
        parts = get_args(kind) if origin in (list, tuple, dict) else _options(kind)
        return tuple(chain.from_iterable(map(members, parts)))
    return (kind,) if is_dataclass(kind) else ()


def _without_unset(kind: Any, value: Any) -> Any:
    """Tables with None for the texts "none" and "unset", where a key is optional and they are no choice of its own."""
    options = _options(kind, value)
    if isinstance(value, str) and value in UNSET:
        literals = [get_args(option) for option in options if get_origin(option) is Literal]
        is_choice = value in chain.from_iterable(literals)
        return None if type(None) in options and not is_choice else value
    within = {get_origin(option): get_args(option) for option in options}
    if isinstance(value, list) and list in within:
        return [_without_unset(within[list][0], entry) for entry in value]
    if not isinstance(value, dict):
        return value
    if dict in within:
        return {key: _without_unset(within[dict][1], entry) for key, entry in value.items()}
    owners = [option for option in options if is_dataclass(option)]
    if len(owners) > 1:
        owners = [owner for owner in owners if _tag(owner) == value.get("kind")]
    known = key_types(owners[0]) if owners else {}
    return {
        key: _without_unset(known[key], entry) if key in known else entry
        for key, entry in value.items()
    }


def _options(kind: Any, value: Any = None) -> list[Any]:
    """The types that a type may stand for, without annotations; value: a table of it, which may name one of its kinds."""
    if get_origin(kind) is Annotated:
        inner, *notes = get_args(kind)
        classes = [note.classes(value) for note in notes if isinstance(note, Kinds | Provided)]
        return [*chain.from_iterable(classes)] or _options(inner, value)
    if get_origin(kind) in UNIONS:
        return [one for part in get_args(kind) for one in _options(part, value)]
    return [kind]


def _sentences(kind: Any, errors: Sequence[Any], change: str) -> str:
    """A sentence for each wrong key, the first ones of many."""
    sentences = list(dict.fromkeys(_sentence(kind, error, change) for error in errors))
    listed = " Also ".join(sentences[:MOST_WRONG])
    more = len(sentences) - MOST_WRONG
    return listed if more <= 0 else f"{listed} {more} more keys are wrong."


def _sentence(kind: Any, error: Any, change: str) -> str:
    path = []
    owner = kind
    for part in error["loc"]:
        owners = members(owner)
        tagged = [member for member in owners if _tag(member) == part]
        if tagged:  # pydantic puts a union's tag into the path; users never wrote it
            owner = tagged[0]
            continue
        path.append(str(part))
        known = key_types(owners[0]) if len(owners) == 1 else {}
        if part in known:
            owner = known[part]
    name = ".".join(path)
    found = error.get("input")
    if isinstance(own := error.get("ctx", {}).get("error"), BadInput):
        return str(own)  # the settings class states it more precisely
    if error["type"] in UNKNOWN_KEY:
        return _sentence_on_unknown(kind, name, path[-1], owner)
    if error["type"] in NO_KEY:
        keys = " (voxlate recipes NAME shows every key)" if change == IN_RECIPE else ""
        return f"expected the key '{name}', found none. Add it{keys}."
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        tags = ", ".join(sorted(str(_tag(member)) for member in members(owner)))
        kind_found = found.get("kind") if isinstance(found, dict) else found
        return (
            f"expected {name}.kind to be one of {tags}, found {kind_found!r}. Choose one of these."
        )
    # pydantic says "Input should be …", "List should have …", and few other sentences
    what = what_is_wrong(error)
    before, should, rest = what.partition("should ")
    wanted = f"'{name}' to {rest}" if should else f"'{name}' to be right ({before})"
    return f"expected {wanted}, found {found!r}. {change.replace('KEY', name)}"


def what_is_wrong(error: Any) -> str:
    """The text of one of pydantic's errors, such as "should be greater than 0"."""
    return str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")


def _sentence_on_unknown(kind: Any, name: str, key: str, owner: Any) -> str:
    known = sorted(set(chain.from_iterable(map(key_types, members(owner)))))
    listed = f"Known keys here: {', '.join(known)}."
    if key in known:
        return (
            f"expected a known key, found '{name}', which other kinds of this table have. {listed}"
        )
    near = [name.removesuffix(key) + similar for similar in nearest(key, known)]
    everywhere = sorted(dict.fromkeys(_paths(kind)), key=lambda path: path.count("."))
    last = {path: path.rpartition(".")[2] for path in everywhere}
    same = [path for path in everywhere if last[path] == key]
    alike = [] if same or near else nearest(key, last.values())[:1]
    meant = [*same, *near, *(path for path in everywhere if last[path] in alike)][:MOST_MEANT]
    hint = f"Did you mean {' or '.join(map(repr, meant))}?" if meant else listed
    return f"expected a known key, found '{name}'. {hint}"


def _paths(kind: Any, table: str = "") -> Iterator[str]:
    """Every key below settings of a kind, as "train.optimiser.lr"."""
    for owner in _options(kind):
        for name, hint in key_types(owner).items() if is_dataclass(owner) else ():
            yield f"{table}{name}"
            yield from _paths(hint, f"{table}{name}.")


def _tag(kind: Any) -> Any:
    return getattr(kind, "kind", None)
