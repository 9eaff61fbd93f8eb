"""A command is described once, by a function: Python, the command line, `voxlate mcp` and the page's form are made from it.

Its arguments and options are one table of fields (base/option.py), which pydantic checks at every door. The modules of
this folder import what computes inside their functions, so that --help needs none of it.
"""

import functools
import importlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, is_dataclass
from inspect import Parameter, Signature, get_annotations, signature
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

from voxlate.base import option
from voxlate.base.errors import BadInput, known_name, system_refusal
from voxlate.base.option import (
    ARGUMENT,
    PANELS,
    MainOption,
    Object,
    Option,
    OutputOption,
    Parameters,
    members,
    option_in,
    option_of,
    table_of,
    text_type,
    without_notes,
)
from voxlate.base.optional import refusal_without
from voxlate.commands.api.progress import Feedback, Reporter, report_to

# The error of every function in Python, which stands before those of its own docstring.
RAISES = """Raises:
    BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do."""
PROGRESS = "progress: True for bars and notes on stderr, False for nothing, or a function (name, done, total, numbers)."
Place = Path | str
Argument = functools.partial(Option, panel=ARGUMENT)
LoadedModel = Annotated[Any, Object("voxlate.synthesis.model:Model")]
RUN = Argument(
    "Run folder, exported model, weights file, starter:NAME or hf://NAME/REPO@COMMIT.",
    metavar="RUN",
    complete="voxlate.training.starters.names:starters_to_run",
)
RUNS = Argument(
    "Run folders, exported models, weights files, starter:NAME or hf://NAME/REPO; without any, the installed starters.",
    metavar="[RUN...]",
    complete=RUN.complete,
)
Address = str | Path  # of a hub, whose hf:// would lose a slash as a path
Run = Annotated[Address, RUN]
Out = Annotated[Place, MainOption("Output folder.")]
Everything = Annotated[bool, OutputOption("Print all scores or baselines.", flag="--all")]


@dataclass(frozen=True)
class Aside:
    """A line that is shown beside the result, on stderr."""

    line: Any
    style: str | None = None


@dataclass(frozen=True)
class Undone:
    """A missing or untrusted result: the exit code is 3. sentence: "" prints nothing."""

    sentence: str = ""


@dataclass
class Command:
    """Makes a function a command, and returns it as Python has it.

    examples: lines of the end of --help. lines: what is printed of a result: lines, tables, messages, Aside and Undone; it
    is called with the result and those arguments that it names. document: the result as plain values. reads: None where
    the command writes files, else the arguments that keep it from writing. keeps: whether messages go to messages.jsonl
    in OUT, and are printed at the end or now. by_line: defaults of the command line that are not Python's. gives:
    attribute of the result that Python returns, by default all of it.
    """

    examples: str
    name: str = ""
    lines: Callable[..., Iterable[Any]] = lambda _: ()
    document: Callable[[Any], Any] = lambda result: plain(result)
    reads: Mapping[str, Any] | None = None
    keeps: Literal["end", "now"] | None = None
    by_line: Mapping[str, Any] = field(default_factory=dict)
    gives: str = ""

    def __call__(self, described: Callable[..., Any]) -> Callable[..., Any]:
        """Add the command, and return the function of Python."""
        self.name = self.name or described.__name__.replace("_", "-")
        COMMANDS[self.name] = self
        return self.function(described)

    def function(self, described: Callable[..., Any]) -> Callable[..., Any]:
        """The function of Python: options are an object or keywords, `progress` may be left out; the docstring lists all."""
        self.described = described
        own = signature(described).parameters
        table = own["options"].annotation if "options" in own else None
        self.given = Parameters()
        for name, parameter in own.items():
            fields = _fields(parameter.annotation)
            self.given |= fields or ({} if name == "progress" else {name: parameter})

        @functools.wraps(described)
        def run(*args: Any, **kwargs: Any) -> Any:
            """Check the names of the arguments, and call the function."""
            given = self._named(args, kwargs, table)
            progress = given.pop("progress", True)
            result, _ = self.call(given, progress)
            return getattr(result, self.gives) if self.gives else result

        run.__signature__ = self._in_python(table)  # type: ignore[attr-defined]
        lines = option.describe({name: one for name, one in self.given.items() if name in own})
        lines += [PROGRESS] if "progress" in own else []
        if table is not None:
            text = "whose fields, listed below, may also be given by name."
            lines += [f"options: {table.__name__}, {text}", *option.describe(_fields(table))]
        text = option.in_python(f"{described.__doc__}")
        run.__doc__ = option.with_args(text, lines).replace("Raises:", RAISES)
        return run

    def _in_python(self, table: Any) -> Signature:
        """The signature of Python's function."""
        own = signature(self.described)
        stated = []
        for name, parameter in {**own.parameters, **_fields(table)}.items():
            parameter = parameter.replace(annotation=without_notes(parameter.annotation))
            if name == "progress":
                parameter = parameter.replace(annotation=Feedback, default=True)
            elif name == "options":
                kind = Parameter.POSITIONAL_OR_KEYWORD
                parameter = Parameter(name, kind, default=None, annotation=table | None)
            stated.append(parameter)
        result = own.return_annotation
        kind = get_annotations(result)[self.gives] if self.gives else result
        return Signature(sorted(stated, key=lambda one: one.kind), return_annotation=kind)

    def _named(self, args: Any, kwargs: dict[str, Any], table: Any) -> dict[str, Any]:
        """The arguments of a call in Python by name."""
        for name in kwargs:
            check_known(name, {*self.given, *signature(self.described).parameters})
        bound = self._in_python(table).bind_partial(*args, **kwargs).arguments
        options = bound.pop("options", None)
        if options is not None and not isinstance(options, table):
            raise BadInput(
                f"options: expected {table.__name__}, found {type(options).__name__}. Give its fields by name, or an object of it."
            )
        return {**(vars(options) if options is not None else {}), **bound}

    def call(
        self, given: Mapping[str, Any], progress: Any, texts: bool = False
    ) -> tuple[Any, dict[str, Any]]:
        """The result of values by name, and the values that were taken; texts: whether they are those of the command line.

        Raises BadInput for wrong values, and for errors of the system.
        """
        from voxlate.base.checked import checked  # loads pydantic, which --help does not need

        values = checked(self.table, given, texts)
        parameters = signature(self.described).parameters
        for name, parameter in parameters.items():
            if fields := _fields(parameter.annotation):
                values[name] = parameter.annotation(**{key: values[key] for key in fields})
        arguments = {name: values[name] for name in parameters if name != "progress"}
        try:
            if "progress" not in parameters:
                return self.described(**arguments), values
            with report_to(progress) as report:
                return self.described(**arguments, progress=report), values
        except ModuleNotFoundError as error:
            raise refusal_without(error) from error
        except OSError as error:
            raise system_refusal(error) from error

    @functools.cached_property
    def table(self) -> Any:
        """All arguments and options as one dataclass."""
        return table_of(self.given)

    @property
    def parameters(self) -> Parameters:
        """The arguments and options of the command line: of the function, and of what shows its result."""
        shown = {**signature(self.lines).parameters, **self.given}
        stated = {name: one for name, one in shown.items() if _is_shown(one)}
        for name, default in self.by_line.items():
            stated[name] = stated[name].replace(default=default)
        return stated

    @property
    def open_parameters(self) -> Parameters:
        """The arguments and options of the function that programs may give."""
        return {name: one for name, one in self.given.items() if _is_shown(one)}

    def show(self, result: Any, given: Mapping[str, Any]) -> list[Any]:
        """What people see of a result."""
        named = signature(self.lines).parameters
        return [*self.lines(result, **{name: given[name] for name in named if name in given})]


COMMANDS = dict[str, Command]()  # those that are imported
MODULES = {
    "api.cohorts": ("phantom", "prepare", "manifest", "info"),
    "api.images": ("synth", "check"),
    "api.scoring": ("evaluate", "compare", "report"),
    "api.choosing": ("recipes", "starters", "plan"),
    "api.training": ("train", "adapt", "import", "calibrate"),
    "api.demo": ("demo",),
    "api.exports": ("export", "push", "listen", "serve"),
    "agents": ("mcp",),
}
# as --help lists them
HOMES = {name: module for module, names in MODULES.items() for name in names}


def commands(names: Iterable[str] = HOMES) -> dict[str, Command]:
    """The commands of these names, which are imported."""
    for name in names:
        importlib.import_module(f"voxlate.commands.{HOMES[name]}")
    return {name: COMMANDS[name] for name in names}


def function(described: Callable[..., Any]) -> Callable[..., Any]:
    """A function of Python that is no command."""
    return Command("").function(described)


def check_known(name: str, known: Collection[str], label: str = "") -> None:
    """Raise BadInput for an option that there is not, with the name that it has today, or similar ones."""
    today = option.RENAMED.get(name)
    if name not in known and today in known:
        raise BadInput(
            f"{label or name}: expected {today}, its name today, found {name}. Write {today}."
        )
    known_name(label or name, "an option", name, known)


def _is_shown(parameter: Parameter) -> bool:
    """Whether the command line has a parameter."""
    stated = option_of(parameter.annotation)
    return stated is not None and stated.panel in (ARGUMENT, *PANELS)


def _fields(table: Any) -> Parameters:
    """The fields of an options dataclass as keywords; none of anything else."""
    is_table = is_dataclass(table) and table is not Reporter
    return option.parameters_of(table) if is_table else {}


def schemas_of(parameters: Parameters) -> dict[str, dict[str, Any]]:
    """The JSON schemas of arguments and options: their types, ranges, defaults and help."""
    from voxlate.base.config import adapter  # loads pydantic

    helps = dict(line.split(": ", 1) for line in option.describe(parameters))
    schemas = {}
    for name, parameter in parameters.items():
        stated, kind = option_in(parameter), text_type(parameter.annotation)
        first = get_origin(members(parameter.annotation)[0])
        schema = (
            {"type": "object"}
            if first is get_origin(Mapping[str, Any])
            else adapter(kind).json_schema()
        )
        if kind in (int, float):
            schema |= {"minimum": stated.least, "maximum": stated.most}
        schema |= {"default": parameter.default, "description": helps[name]}
        absent = (None, (), parameter.empty)
        schemas[name] = {key: plain(value) for key, value in schema.items() if value not in absent}
    return schemas


def plain(value: Any) -> Any:
    """A result as plain values, which JSON can state: its document, if it has one."""
    if hasattr(value, "document"):
        document = value.document
        return plain(document() if callable(document) else document)
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
