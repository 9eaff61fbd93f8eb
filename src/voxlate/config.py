"""Strict settings: frozen dataclasses that a TOML table fills, where an unknown key is an error with a hint."""

import dataclasses
import difflib
import importlib
import types
import typing
from typing import Annotated, Any, TypeVar, Union, dataclass_transform, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError

from voxlate.errors import BadInput

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def settings(cls: type[T]) -> type[T]:
    """Make a class a frozen, keyword-only dataclass that refuses unknown keys when filled from a recipe.

    Give each key its meaning with `Annotated[type, Field(description=..., gt=...)]`.
    """
    cls.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


def fill(kind: type[T], values: dict[str, Any], where: str) -> T:
    """Fill settings of the given kind from nested tables; raises BadInput naming the key, the value and the mend."""
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise BadInput(f"{where}: {_sentence(kind, error.errors()[0])}") from error


def imported(name: str) -> Any:
    """The object that "module:attribute" names; raises BadInput where there is none."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadInput(
            f"{name}: expected a module and one of its names to import, found neither or one ({error}). "
            "Check the spelling, and that Python finds the module (PYTHONPATH)."
        ) from error


def key_types(kind: Any) -> dict[str, Any]:
    """The keys of a settings class with their types (annotations kept)."""
    return typing.get_type_hints(kind, include_extras=True)


def members(kind: Any) -> tuple[Any, ...]:
    """The settings classes that a type may stand for: itself, or the members of a union, or a list's elements."""
    if get_origin(kind) is Annotated:
        return members(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType, list, tuple, dict):
        return tuple(member for argument in get_args(kind) for member in members(argument))
    return (kind,) if dataclasses.is_dataclass(kind) else ()


def _sentence(kind: Any, error: Any) -> str:
    path, owner = [], kind
    for part in error["loc"]:
        owners = members(owner)
        tagged = [one for one in owners if _tag(one) == part]
        if tagged:  # pydantic puts a union's tag into the path; users never wrote it
            owner = tagged[0]
            continue
        path.append(str(part))
        known = key_types(owners[0]) if len(owners) == 1 else {}
        if part in known:
            owner = known[part]
    name, message, found = ".".join(path), error["msg"], error.get("input")
    if isinstance(own := error.get("ctx", {}).get("error"), BadInput):
        return str(own)  # the settings class has said it better
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return _unknown(name, path[-1], owner)
    if error["type"] in ("missing", "missing_argument"):
        return f"expected the key '{name}', found none. Add it (voxlate recipes NAME shows every key)."
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        tags = ", ".join(sorted(str(_tag(one)) for one in members(owner)))
        kind_found = found.get("kind") if isinstance(found, dict) else found
        return f"expected {name}.kind to be one of {tags}, found {kind_found!r}. Choose one of these."
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    return f"expected of '{name}': {message}; found {found!r}. Change it in the recipe or with --set {name}=VALUE."


def _unknown(name: str, key: str, owner: Any) -> str:
    known = sorted({field for one in members(owner) for field in key_types(one)})
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"Did you mean '{near[0]}'?" if near else f"Known keys here: {', '.join(known)}."
    return f"expected a known key, found '{name}'. {hint}"


def _tag(kind: Any) -> Any:
    return getattr(kind, "kind", None)
