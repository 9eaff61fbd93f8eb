"""What the annotations of an options dataclass state. This module imports nothing heavy: --help reads it."""

import functools
import typing
from itertools import chain
from typing import Any, get_args, get_origin

from voxlate.base.options.option import UNIONS, option_of, without_notes


@functools.cache
def field_types(table: Any) -> dict[str, Any]:
    """The types of a dataclass's fields with their Options: its own fields first, then those of its bases."""
    hints = typing.get_type_hints(table, include_extras=True)
    owners = (vars(owner).get("__annotations__", {}) for owner in table.__mro__)
    return {name: hints[name] for name in dict.fromkeys(chain.from_iterable(owners))}


def text_type(hint: Any) -> Any:
    """The type that the command line reads: that which the Option states, or else the first of the field's types."""
    option = option_of(hint)
    if option is not None and option.takes is not None:
        return option.takes
    bare = without_notes(hint)
    return get_args(bare)[0] if get_origin(bare) in UNIONS else bare
