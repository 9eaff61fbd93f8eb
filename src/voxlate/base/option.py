"""How an option is declared: once, as the field of a frozen dataclass, with its type, default, range and help.

Its name is that of the field at every door: --mask-from is mask_from in Python and in JSON. pydantic checks its values by
its type and its Option (checked.py); typer shows it, and reads what the first of its types takes (commands/cli/flags.py).
"""

import functools
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass, replace
from functools import partial
from importlib.resources.abc import Traversable
from inspect import Parameter, Signature, cleandoc, signature
from itertools import chain
from pathlib import Path
from pkgutil import resolve_name
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
)

from voxlate.base.errors import BadInput, as_list, known_name

T = TypeVar("T")
Parameters = dict[str, Parameter]
UNIONS = (Union, types.UnionType)  # the origins of A | B

# Panels of --help after that of arguments, in their order. "Options" is the name under which typer shows --help itself.
ARGUMENT, PYTHON = "Arguments", "Python"  # panels without a flag, and only in Python
MAIN = "Options"
INPUT = "Input"
PREPARATION = "Preparation"
TRAINING = "Training"
PLAN = "Plan"
SAMPLING = "Sampling"
SCORES = "Scores"
OUTPUT = "Output"
ADVANCED = "Advanced"
PANELS = (MAIN, INPUT, PREPARATION, TRAINING, PLAN, SAMPLING, SCORES, OUTPUT, ADVANCED)

# Limit of numbers without a range: above any count, and exact in float64.
MOST_NUMBER = 2**48
FLAG = re.compile(r"--[a-z][a-z-]*")
SIZES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}  # bytes, by the letter before "B"
# An empty text would stand for the current folder, or for no choice.
RULES = {"arbitrary_types_allowed": True, "allow_inf_nan": False, "str_min_length": 1}


# names of earlier versions that are like no name of today
RENAMED = {
    "changes": "set",
    "memory_bytes": "memory",
    "range": "value_range",
    "share": "replay_share",
    "start": "init",
    "synth": "set",
}


@dataclass(frozen=True)
class Option:
    """How a parameter is shown and read: `name: Annotated[type, Option("What it does.")] = default`.

    A field of an options dataclass without an Option is a keyword of the Python function alone.
    metavar: the kind of value in --help; by default from the type. least, most: range of a number, or of each of several.
    read: makes the value of the text, or texts, of the command line. check: raises BadInput, without a place, for a value
    that does not fit. complete: the values that a shell suggests, or "module:name" of a collection of them, or of a
    function that returns them; the module is imported when a shell asks. flag: of what only the command line has.
    """

    help: str
    panel: str = ADVANCED
    metavar: str = ""
    least: float = -MOST_NUMBER
    most: float = MOST_NUMBER
    read: Callable[[Any], Any] | None = None
    check: Callable[[Any], object] | None = None
    complete: str | Sequence[str] = ()
    flag: str = ""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """pydantic's own check of the type, after `read` and before the range and `check`."""
        from pydantic_core import core_schema  # loads pydantic, which --help does not need

        kind = text_type(source)
        several = get_origin(kind) is list and not {str, Path} & {*members(source)}
        choices = get_args(kind) if get_origin(kind) is Literal else ()

        def before(value: Any) -> Any:
            """The value of texts; one text for a list of one."""
            given = [value] if several and isinstance(value, str | Path) else value
            texts = given if isinstance(given, list | tuple) else [given]
            is_read = texts and all(isinstance(part, str) for part in texts)
            if self.read is None or not is_read or (choices and given not in choices):
                return given
            return self.read(given)

        read = core_schema.no_info_before_validator_function(before, handler(source))
        return core_schema.no_info_after_validator_function(self.checked, read)

    def checked(self, value: Any) -> Any:
        """The value; raises BadInput where a number is out of the range, or where it does not fit."""
        for number in value if isinstance(value, list | tuple) else (value,):
            is_number = isinstance(number, int | float) and not isinstance(number, bool)
            if is_number and not self.least <= number <= self.most:
                ends = f"{self.least:g} to {self.most:g}"
                if self.most == MOST_NUMBER and number < self.least:
                    ends = f"at least {self.least:g}"
                raise BadInput(f"expected {ends}, found {min(number, 1e300):g}. Change it.")
        if self.check is not None and value is not None:
            self.check(value)
        return value


@dataclass(frozen=True)
class Object:
    """The annotation of an object of the class "module:Class", which is imported by those who make one."""

    home: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema  # as above

        return core_schema.no_info_plain_validator_function(self.checked)

    def checked(self, value: Any) -> Any:
        """The object; raises ValueError for one of another class."""
        if self.home not in (f"{cls.__module__}:{cls.__qualname__}" for cls in type(value).__mro__):
            raise ValueError(f"a {self.home.partition(':')[2]}")
        return value


# options of the two panels that most commands have
MainOption = partial(Option, panel=MAIN)
OutputOption = partial(Option, panel=OUTPUT)


def members(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or a type alone, without its notes."""
    bare = without_notes(hint)
    return get_args(bare) if get_origin(bare) in UNIONS else (bare,)


def text_type(hint: Any) -> Any:
    """The type that the command line reads: the first of the field's types; of a table KEY=VALUE texts."""
    first = members(hint)[0]
    origin = get_origin(first)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return list[str]
    if (
        origin is not None
        and isinstance(origin, type)
        and issubclass(origin, Sequence)
        and origin is not tuple
    ):
        return list[text_type(get_args(first)[0])]  # type: ignore[misc]
    return first


def suggestions(option: Option, begun: str) -> list[str]:
    """The values of an option that begin with the letters of a word that a shell completes."""
    known: Any = option.complete
    if isinstance(known, str):
        known = resolve_name(known)
    return [value for value in (known() if callable(known) else known) if value.startswith(begun)]


def option_of(annotation: Any) -> Option | None:
    """The Option of an annotated parameter; None for an argument without a flag."""
    notes = getattr(annotation, "__metadata__", ())
    return next((note for note in notes if isinstance(note, Option)), None)


def option_in(parameter: Parameter) -> Option:
    """The Option of a parameter that has one."""
    option = option_of(parameter.annotation)
    assert option is not None
    return option


def flag_of(name: str) -> str:
    """The name of an option on the command line."""
    return f"--{name.replace('_', '-')}"


def without_notes(annotation: Any) -> Any:
    """The type of an annotation."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


@dataclass_transform(frozen_default=True, kw_only_default=True)
def options(cls: type[T]) -> type[T]:
    """Make a class a frozen, keyword-only dataclass of options, whose help has plain types and a line for each field."""
    cls.__pydantic_config__ = RULES  # type: ignore[attr-defined]
    made = dataclass(frozen=True, kw_only=True)(cls)
    stated = parameters_of(made)
    plain = [one.replace(annotation=without_notes(one.annotation)) for one in stated.values()]
    made.__signature__ = Signature(plain)  # type: ignore[attr-defined]
    made.__doc__ = with_args(f"{cls.__doc__}", describe(stated))
    return made


def parameters_of(table: Any) -> Parameters:
    """The fields of a dataclass as keywords: its own first, then those of its bases."""
    _, *keywords = signature(table.__init__).parameters.values()
    by_name = {keyword.name: keyword for keyword in keywords}
    return {name: by_name[name] for name in field_types(table)}


@functools.cache
def field_types(table: Any) -> dict[str, Any]:
    """The types of a dataclass's fields with their Options: its own fields first, then those of its bases."""
    hints = typing.get_type_hints(table, include_extras=True)
    owners = (vars(owner).get("__annotations__", {}) for owner in table.__mro__)
    return {name: hints[name] for name in dict.fromkeys(chain.from_iterable(owners))}


def table_of(parameters: Mapping[str, Parameter]) -> Any:
    """The dataclass of parameters."""
    stated = [
        (
            name,
            one.annotation,
            field(**({} if one.default is one.empty else {"default": one.default})),
        )
        for name, one in parameters.items()
    ]
    table = make_dataclass("Given", stated, kw_only=True)
    table.__pydantic_config__ = RULES  # type: ignore[attr-defined]
    return table


def with_args(doc: str, parameters: Sequence[str]) -> str:
    """A docstring with its parameters in Google's style, in place of the form feed, after which its other sections are."""
    text, _, sections = cleandoc(doc).partition("\f\n")
    return "\n    ".join([f"{text.rstrip()}\n\nArgs:", *parameters]) + f"\n\n{sections}"


def describe(parameters: Mapping[str, Parameter]) -> list[str]:
    """A line for each parameter: its name, what it does, its range and its default, in the words of Python."""
    lines = []
    for name, parameter in parameters.items():
        option, default = option_of(parameter.annotation), parameter.default
        text = "" if option is None else f" {_help_of(option)}{range_of(option)}"
        if default not in (None, (), Parameter.empty):
            text += f" Default: {default!r}."
        lines.append(f"{name}:{text or ' of the function in Python alone.'}")
    return lines


def _help_of(option: Option) -> str:
    """The help of an option in the words of Python."""
    text = option.help.replace("Repeatable", "One or a list" if option.read is None else "A dict")
    if option.metavar == "X Y Z" and option.read is not None:
        text += " In the order z, y, x."
    return in_python(text)


def in_python(text: str) -> str:
    """A help in which options stand as in Python: mask_from for --mask-from."""
    return FLAG.sub(lambda flag: flag[0][2:].replace("-", "_"), text)


def range_of(option: Option) -> str:
    """The range of an option as the end of its help; "" for counts, whose least value of 0 or 1 is plain."""
    if option.most < MOST_NUMBER:
        return f" From {option.least:g} to {option.most:g}."
    return "" if option.least in (-MOST_NUMBER, 0, 1) else f" At least {option.least:g}."


def merge(table: type[T], options: T | None, changes: Mapping[str, Any]) -> T:
    """The options of a table, by default its defaults, with changes of their fields."""
    return table(**changes) if options is None else replace(options, **changes)  # type: ignore[type-var]


def shipped_tables(folder: Traversable) -> list[str]:
    """Names of the TOML files of a folder of the package."""
    files = folder.iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def read_shipped(folder: Traversable, name: Path | str, option: str) -> dict[str, Any]:
    """A TOML file of a folder of the package by its name, or one of the user's by its path.

    option: what messages begin with. Raises BadInput where there is neither, or no TOML in it.
    """
    import tomllib  # here, because --help needs none of it

    file: Path | Traversable = Path(name)
    known = shipped_tables(folder)
    if str(name) in known or not file.is_file():
        file = (
            folder / f"{known_name(option, 'a TOML file, or a known name', str(name), known)}.toml"
        )
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadInput(
            f"{option} {name}: expected TOML, found something else ({error}). Fix the file."
        ) from error


def bytes_of(text: str, where: str = "") -> float:
    """8GB, 500 MB or 2g as bytes; raises BadInput for a text that is no size above 0."""
    size = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([kmgt]?)i?b?\s*", text.lower())
    if size is None or not float(size[1]):
        raise BadInput(f"{where}expected a size such as 8GB, found {text!r}. Write it so.")
    return float(size[1]) * SIZES[size[2]]


def pairs(texts: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE texts as a table; raises BadInput for a text without `=`, and for a key with two values."""
    table = dict[str, str]()
    for text in as_list(texts):
        if "=" not in text:
            raise BadInput(f"expected KEY=VALUE, found {text!r}. Add the value.")
        key, _, value = text.partition("=")
        if table.setdefault(key.strip(), value) != value:
            raise BadInput(
                f"expected each key once, found '{key.strip()}' twice. Remove one of the two."
            )
    return table


def toml_value(text: str) -> Any:
    """A text as a TOML value; a bare word is text: --set train.precision=float32."""
    import tomllib  # here, because --help needs none of it

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def check_device(name: str) -> None:
    """Raise BadInput for a text that no machine has as the name of a device."""
    if re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d+)?", name) is None:
        raise BadInput(
            f"expected auto, cpu, cuda, cuda:1, mps or xpu, found {name!r}. Choose one of these."
        )


def in_array_order(sizes: Sequence[Any]) -> tuple[Any, ...]:
    """Sizes in the order of arrays (z, y, x) from those in the order of the command line."""
    return tuple(reversed(sizes))


Device = Annotated[
    str,
    Option(
        "Device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps or xpu.",
        metavar="NAME",
        check=check_device,
    ),
]
AllowCode = Annotated[bool, Option("Import and run the model's own Python code.")]
CHANGES = MainOption(
    "Change of a key of the recipe, such as train.steps=500. Repeatable.",
    metavar="KEY=…",
    read=pairs,
)
MEMORY = Option(
    "Memory of the training, such as 8GB. Default: most of the free memory.",
    panel=PLAN,
    metavar="SIZE",
    read=bytes_of,
)


@options
class ExecutorOptions:
    """Where cases are processed, and by how many workers; None: in this process, 0 workers: as many as fit."""

    executor: Annotated[
        Literal["local", "ray"] | None, Option("Workers: local (processes) or ray.")
    ] = None
    workers: Annotated[int | None, Option("Number of workers.", least=0)] = None
    address: Annotated[str | None, Option("Ray cluster: HOST:PORT or auto.", metavar="HOST")] = None
