"""Strict settings: frozen dataclasses that a TOML table fills, where an unknown key is an error with a hint."""

import dataclasses
import difflib
from typing import Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, TypeAdapter, ValidationError

from voxlate.errors import BadInput


@dataclass_transform(frozen_default=True, kw_only_default=True)
def settings(cls: type[T]) -> type[T]:
    """Make a class a frozen, keyword-only dataclass that refuses unknown keys when filled from a recipe.

    Give each key its meaning with `Annotated[type, Field(description=..., gt=...)]`.
    """
    cls.__pydantic_config__ = ConfigDict(extra="forbid", arbitrary_types_allowed=True)  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)
