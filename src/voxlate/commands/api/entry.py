"""What every command does as a function in Python: its arguments are checked, and its docstring lists its options."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, TypeVar, get_args, get_type_hints

from voxlate.base.errors import system_refusal
from voxlate.base.options.check import check_value
from voxlate.base.options.option import describe_fields

F = TypeVar("F", bound=Callable[..., Any])
PROGRESS_LINE = "progress: True for bars and notes on stderr, False for nothing, or a function (name, done, total, numbers)."


def command(function: F) -> F:
    """The function, which raises BadInput for arguments of other types than it states, and for errors of the system.

    The options are left to check_options. Lines on the progress, and on each field of the options, are added to the docstring.
    """
    signature, hints = inspect.signature(function), get_type_hints(function, include_extras=True)
    checked = [name for name in signature.parameters if name not in ("options", "changes")]

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        """Check the arguments, and call the function."""
        bound = signature.bind(*args, **kwargs)
        for name in checked:
            if name in bound.arguments:
                bound.arguments[name] = check_value(name, bound.arguments[name], hints[name])
        try:
            return function(*bound.args, **bound.kwargs)
        except OSError as error:
            raise system_refusal(error) from error

    lines = [inspect.cleandoc(function.__doc__ or "")]
    if "progress" in signature.parameters:
        lines.append(PROGRESS_LINE)
    table: Any = next((kind for kind in get_args(hints.get("options")) if is_dataclass(kind)), None)
    if table is not None:
        lines.append(
            f"options: {table.__name__}, whose fields may also be given by name (changes):"
        )
        lines += describe_fields(table)
    run.__doc__ = "\n".join(lines)
    return run  # type: ignore[return-value]
