"""How an option is declared: once, as the field of a frozen dataclass, with its type, default, range and help."""

import functools
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources.abc import Traversable
from inspect import Parameter, Signature, cleandoc, signature
from itertools import chain
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any, TypeVar, Union, dataclass_transform, get_args, get_origin

from voxlate.base.errors import BadInput, known_name

T = TypeVar("T")
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
NO_PARAMETERS: Mapping[str, Parameter] = {}
FLAG = re.compile(r"--[a-z][a-z-]*")
# a command line, or an option with one value, if it has one, and its own words for Python
IN_SENTENCE = re.compile(
    rf"\bvoxlate [a-z-]+ [^.;()]*|({FLAG.pattern})(?: ([A-Z\d][\w.]*+)(?! \d))?(?: \(in Python: ([^)]*)\))?"
)
SIZES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}  # bytes, by the letter before "B"


@dataclass(frozen=True)
class Option:
    """How the command line shows and reads a parameter: `name: Annotated[type, Option("What it does.")] = default`.

    A field of an options dataclass without an Option is a keyword of the Python function alone.
    flag: the option's names where they are not the field's, such as "--out" or "--audit/--no-audit" or "--verbose -v".
    metavar: the kind of value in --help; by default from the type. least, most: range of a number.
    takes: type of the value on the command line, where the field takes other types too.
    read: converts that value into the field's. check: raises BadInput, without a place, for a value that does not fit.
    objects: the classes for which Any stands.
    complete: the values that a shell suggests, or "module:name" of a collection of them, or of a function that returns
    them; the module is imported when a shell asks.
    """

    help: str
    flag: str = ""
    panel: str = ADVANCED
    metavar: str = ""
    least: float = -MOST_NUMBER
    most: float = MOST_NUMBER
    takes: Any = None
    read: Callable[[Any], Any] | None = None
    check: Callable[[Any], object] | None = None
    objects: str = ""
    complete: str | Sequence[str] = ()


# options of the two panels that most commands have
MainOption = partial(Option, panel=MAIN)
OutputOption = partial(Option, panel=OUTPUT)


def suggestions(option: Option, begun: str) -> list[str]:
    """The values of an option that begin with the letters of a word that a shell completes."""
    known: Any = option.complete
    if isinstance(known, str):
        known = resolve_name(known)
    return [value for value in (known() if callable(known) else known) if value.startswith(begun)]


def shipped_tables(folder: Traversable) -> list[str]:
    """Names of the TOML files of a folder of the package."""
    files = folder.iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def option_of(annotation: Any) -> Option | None:
    """The Option of an annotated parameter; None for an argument without a flag."""
    notes = getattr(annotation, "__metadata__", ())
    return next((note for note in notes if isinstance(note, Option)), None)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def options(cls: type[T]) -> type[T]:
    """Make a class a frozen, keyword-only dataclass of options, whose help has plain types and a line for each field."""
    made = dataclass(frozen=True, kw_only=True)(cls)
    stated = parameters_of(made)
    plain = [one.replace(annotation=without_notes(one.annotation)) for one in stated.values()]
    made.__signature__ = Signature(plain)  # type: ignore[attr-defined]
    made.__doc__ = with_args(f"{cls.__doc__}", describe(stated))
    return made


def with_args(doc: str, parameters: Sequence[str]) -> str:
    """A docstring with its parameters in Google's style, in place of the form feed, after which its other sections are."""
    text, _, sections = cleandoc(doc).partition("\f\n")
    return "\n    ".join([f"{text.rstrip()}\n\nArgs:", *parameters]) + f"\n\n{sections}"


def parameters_of(table: Any) -> dict[str, Parameter]:
    """The fields of a dataclass as keywords."""
    _, *keywords = signature(table.__init__).parameters.values()
    return {keyword.name: keyword for keyword in keywords}


def without_notes(annotation: Any) -> Any:
    """The type of an annotation."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def flag_of(name: str, option: Option) -> str:
    """The option's name on the command line, without the one that negates it."""
    return option.flag.partition("/")[0].partition(" ")[0] or f"--{name.replace('_', '-')}"


def describe(parameters: Mapping[str, Parameter]) -> list[str]:
    """A line for each parameter: its name, what it does, its range and its default, in the words of Python."""
    lines = []
    for name, parameter in parameters.items():
        option, default = option_of(parameter.annotation), parameter.default
        text = "" if option is None else f" {_help_of(option, parameters)}{range_of(option)}"
        if default not in (None, (), Parameter.empty):
            text += f" Default: {default!r}."
        lines.append(f"{name}:{text or ' of the function in Python alone.'}")
    return lines


def _help_of(option: Option, parameters: Mapping[str, Parameter]) -> str:
    """The help of an option in the words of Python. parameters: beside it."""
    several = "One or a list" if option.read is None else "A dict"
    text = option.help.replace("Repeatable", several)
    if option.read is in_array_order or option.metavar.endswith("[Z]"):
        text += " In the order z, y, x."
    return in_python(text, parameters)


def in_python(text: str, parameters: Mapping[str, Parameter] = NO_PARAMETERS) -> str:
    """A text in which options stand as in Python: exact=True for --exact (of these parameters), samples=8 for --samples 8.

    What follows as "(in Python: …)" takes the place of an option, and command lines stay.
    """
    names = {}
    for name, parameter in parameters.items():
        if option := option_of(parameter.annotation):
            is_switch = without_notes(parameter.annotation) is bool
            names[flag_of(name, option)] = f"{name}=True" if is_switch else name
            names[option.flag.partition("/")[2]] = f"{name}=False"

    def given(found: re.Match[str]) -> str:
        """An option as a keyword."""
        flag, value, stated = found.groups()
        if flag is None:
            return found[0]
        name = names.get(flag, flag[2:].replace("-", "_"))
        return stated or (f"{name}={value}" if value else name)

    return IN_SENTENCE.sub(given, text)


@contextmanager
def words_of_python(parameters: Mapping[str, Parameter]) -> Iterator[None]:
    """An error, which names options as the command line does, names them as Python does."""
    try:
        yield
    except BadInput as error:
        error.args = (in_python(str(error), parameters),)
        raise


def range_of(option: Option) -> str:
    """The range of an option as the end of its help; "" for counts, whose least value of 0 or 1 is plain."""
    if option.most < MOST_NUMBER:
        return f" From {option.least:g} to {option.most:g}."
    return "" if option.least in (-MOST_NUMBER, 0, 1) else f" At least {option.least:g}."


def check_range(name: str, value: Any, option: Option) -> None:
    """Raise BadInput for a number, or one of several, out of the range that the option states."""
    for number in value if isinstance(value, list | tuple) else (value,):
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        if is_number and not option.least <= number <= option.most:
            ends = f"{option.least:g} to {option.most:g}"
            if option.most == MOST_NUMBER and number < option.least:
                ends = f"at least {option.least:g}"
            raise BadInput(f"{name}: expected {ends}, found {min(number, 1e300):g}. Change it.")


def merge(table: type[T], options: T | None, changes: Mapping[str, Any]) -> T:
    """The options of a table, by default its defaults, with changes of their fields."""
    return table(**changes) if options is None else replace(options, **changes)  # type: ignore[type-var]


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
    for text in texts:
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


Device = Annotated[
    str,
    Option(
        "Device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps or xpu.",
        metavar="NAME",
        check=check_device,
    ),
]
AllowCode = Annotated[bool, Option("Import and run the model's own Python code.")]


def in_array_order(sizes: Sequence[Any]) -> tuple[Any, ...]:
    """Sizes in the order of arrays (z, y, x) from those in the order of the command line."""
    return tuple(reversed(sizes))


CHANGES = MainOption(
    "Change of a key of the recipe, such as train.steps=500. Repeatable.",
    flag="--set",
    metavar="KEY=…",
    takes=list[str],
    read=pairs,
)
MEMORY = Option(
    "Memory of the training, such as 8GB. Default: most of the free memory.",
    flag="--memory",
    panel=PLAN,
    metavar="SIZE",
    takes=str,
    read=bytes_of,
)


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
