"""How an option is declared: once, as the field of a frozen dataclass, with its type, default, range and help.

Its name is that of the field at every door: --mask-from is mask_from in Python and in JSON. pydantic checks its values
(config.py); typer shows it, and reads what the first of its types takes (commands/cli/terminal.py).
"""

import functools
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, make_dataclass, replace
from functools import partial
from importlib.resources.abc import Traversable
from inspect import Parameter
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
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
ARGUMENT = "Arguments"  # the panel of what has no flag
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
UNSET = "unset"  # the value of a key that is to have none, for which TOML has no word
SIZES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}  # bytes, by the letter before "B"
# An empty text would stand for the current folder, or for no choice.
RULES = {"arbitrary_types_allowed": True, "allow_inf_nan": False, "str_min_length": 1}


@dataclass(frozen=True)
class Option:
    """How a parameter is shown and read: `name: Annotated[type, Option("What it does.")] = default`.

    metavar: the kind of value in --help; by default from the type. least, most: range of a number.
    read: makes the value of the text, or texts, of the command line. check: raises BadInput, without a place, for a value
    that does not fit. flag: of what only the command line has.
    """

    help: str
    panel: str = ADVANCED
    metavar: str = ""
    least: float | None = None
    most: float | None = None
    read: Callable[[Any], Any] | None = None
    check: Callable[[Any], object] | None = None
    flag: str = ""
    __is_annotated_types_grouped_metadata__: ClassVar = True  # pydantic takes the notes of __iter__

    def __iter__(self) -> Iterator[Any]:
        """How pydantic checks a value."""
        from pydantic import AfterValidator, BeforeValidator, Field  # which --help does not need

        most = MOST_NUMBER if self.most is None and self.least is not None else self.most
        yield Field(description=in_python(self.help), ge=self.least, le=most)
        yield AfterValidator(self._checked)
        yield BeforeValidator(self._value)

    def _value(self, given: Any) -> Any:
        """The value of texts; any other value as it is."""
        texts = given if isinstance(given, list | tuple) else [given]
        is_read = texts and all(isinstance(text, str | Path) for text in texts)
        return self.read(given) if is_read and self.read else given

    def _checked(self, value: Any) -> Any:
        """The value; raises BadInput where it does not fit."""
        if self.check is not None and value is not None:
            self.check(value)
        return value


@dataclass(frozen=True)
class Object:
    """The annotation of an object of the class "module:Class", which is imported by those who make one."""

    home: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema  # as above

        return core_schema.no_info_after_validator_function(self.checked, core_schema.any_schema())

    def checked(self, value: Any) -> Any:
        """The object; raises ValueError for one of another class."""
        if self.home not in (f"{cls.__module__}:{cls.__qualname__}" for cls in type(value).__mro__):
            raise ValueError(f"should be a {self.home.partition(':')[2]}")
        return value


# options of the two panels that most commands have
MainOption = partial(Option, panel=MAIN)
OutputOption = partial(Option, panel=OUTPUT)


def first_type(annotation: Any) -> Any:
    """The type of an annotation, of a union the first one."""
    bare = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    return get_args(bare)[0] if get_origin(bare) in UNIONS else bare


def text_type(annotation: Any) -> Any:
    """The type that the command line reads: the first of the field's types; of a table KEY=VALUE texts."""
    first = first_type(annotation)
    origin: Any = get_origin(first)
    if origin in (Literal, tuple, None):
        return first
    if issubclass(origin, Mapping):
        return list[str]
    return list[text_type(get_args(first)[0])]  # type: ignore[misc]


def option_in(parameter: Parameter) -> Option:
    """The Option of a parameter."""
    return next(note for note in parameter.annotation.__metadata__ if isinstance(note, Option))


def flag_of(name: str) -> str:
    """The name of an option on the command line."""
    return f"--{name.replace('_', '-')}"


@dataclass_transform(frozen_default=True, kw_only_default=True)
def options(cls: type[T]) -> type[T]:
    """Make a class a frozen, keyword-only dataclass of options."""
    cls.__pydantic_config__ = RULES  # type: ignore[attr-defined]
    return dataclass(frozen=True, kw_only=True)(cls)


@functools.cache
def parameters_of(table: Any) -> Parameters:
    """The fields of a dataclass as keywords."""
    hints = typing.get_type_hints(table, include_extras=True)
    parameters = Parameters()
    for one in fields(table):
        default = Parameter.empty if one.default is MISSING else one.default
        kind = Parameter.KEYWORD_ONLY
        parameters[one.name] = Parameter(
            one.name, kind, default=default, annotation=hints[one.name]
        )
    return parameters


def table_of(parameters: Mapping[str, Parameter]) -> Any:
    """The dataclass of parameters."""
    stated = []
    for name, one in parameters.items():
        default: Any = MISSING if one.default is one.empty else one.default
        stated.append((name, one.annotation, field(default=default)))
    return options(make_dataclass("Given", stated, kw_only=True))


def help_of(parameter: Parameter) -> str:
    """What an option does, its range (of counts, whose least value of 0 or 1 is plain, none) and its default."""
    option, default = option_in(parameter), parameter.default
    text = option.help
    if option.most is not None:
        text += f" From {option.least:g} to {option.most:g}."
    elif option.least not in (None, 0, 1):
        text += f" At least {option.least:g}."
    if isinstance(default, bool) or default in (None, (), Parameter.empty):
        return text
    stated = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f"{text} Default: {stated}."


def in_python(text: str) -> str:
    """A help in which options stand as in Python: mask_from for --mask-from."""
    return FLAG.sub(lambda flag: flag[0][2:].replace("-", "_"), text)


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


def in_array_order(sizes: Sequence[Any]) -> tuple[Any, ...]:
    """Sizes in the order of arrays (z, y, x) from those in the order of the command line."""
    return tuple(reversed(sizes))


Device = Annotated[
    str,
    Option(
        "Device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps or xpu.",
        metavar="NAME",
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
        Literal["local", "ray"] | None,
        Option("Workers: local (processes) or ray (of RAY_ADDRESS, else of this machine)."),
    ] = None
    workers: Annotated[int | None, Option("Number of workers.", least=0)] = None
