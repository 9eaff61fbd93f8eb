"""A command is described once, by a function: Python, the command line, `voxlate mcp` and the page's form are made from it.

The modules of this folder import what computes inside their functions, so that --help needs none of it.
"""

import functools
import importlib
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, is_dataclass, replace
from inspect import Parameter, Signature, get_annotations, signature
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

from voxlate.base.errors import known_name, system_refusal
from voxlate.base.messages import reworded
from voxlate.base.optional import refusal_without
from voxlate.base.options import option
from voxlate.base.options.option import (
    ARGUMENT,
    FLAG,
    PANELS,
    PYTHON,
    MainOption,
    Option,
    OutputOption,
    describe,
    field_types,
    option_of,
    text_type,
    with_args,
    without_notes,
)
from voxlate.commands.api.progress import Feedback, Reporter, report_to

# The error of every function in Python, which stands before those of its own docstring.
RAISES = """Raises:
    BadInput: an argument, an option or a file is wrong; the message states what was expected, found, and what to do."""

Place = Path | str
Parameters = dict[str, Parameter]
Argument = functools.partial(Option, panel=ARGUMENT)
RUN = Argument(
    "Run folder, exported model, weights file, starter:NAME or hf://NAME/REPO@COMMIT.",
    metavar="RUN",
    takes=str,  # a path would lose a slash of hf://
    complete="voxlate.training.starters.names:starters_to_run",
)
Run = Annotated[Place, RUN]
RUNS = Argument(
    "Run folders, exported models, weights files, starter:NAME or hf://NAME/REPO; without any, the installed starters.",
    metavar="[RUN...]",
    takes=list[str],
    complete=RUN.complete,
)
OUT = MainOption("Output folder.")
Out = Annotated[Place, OUT]
Everything = Annotated[bool, OutputOption("Print all files, scores or baselines.", flag="--all")]


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
    attribute of the result that Python returns, by default all of it. keys: gives further keywords, which are keys of
    the option `synth`.
    """

    examples: str
    name: str = ""
    lines: Callable[..., Iterable[Any]] = lambda _: ()
    document: Callable[[Any], Any] = lambda result: plain(result)
    reads: Mapping[str, Any] | None = None
    keeps: Literal["end", "now"] | None = None
    by_line: Mapping[str, Any] = field(default_factory=dict)
    gives: str = ""
    keys: Callable[[], Collection[str]] = tuple

    def __call__(self, described: Callable[..., Any]) -> Callable[..., Any]:
        """Add the command, and return the function of Python."""
        self.described = described
        self.call = _checked(described, self.keys)
        self.name = self.name or described.__name__.replace("_", "-")
        COMMANDS[self.name] = self
        return _for_python(self.call, described, self.gives)

    @functools.cached_property
    def parameters(self) -> Parameters:
        """The arguments and options of the command line: of the function, and of what shows its result."""
        parameters = {
            **_stated(signature(self.lines).parameters),
            **parameters_of(self.described),
        }
        for name, default in self.by_line.items():
            parameters[name] = parameters[name].replace(default=default)
        return parameters

    def arguments(self, given: Mapping[str, Any], progress: Reporter) -> dict[str, Any]:
        """The arguments of the call from values by name, which fill the options dataclasses."""
        values = {**given, "progress": progress}
        parameters = signature(self.described).parameters
        for name, parameter in parameters.items():
            table: Any = parameter.annotation
            if _is_table(table):
                known = _stated(_fields(table)).keys() & given.keys()
                values[name] = table(**{key: given[key] for key in known})
        return {name: values[name] for name in parameters if name in values}

    def show(self, result: Any, given: Mapping[str, Any]) -> list[Any]:
        """What people see of a result."""
        named = signature(self.lines).parameters
        return [*self.lines(result, **{name: given[name] for name in named if name in given})]


COMMANDS = dict[str, Command]()  # those that are imported
MODULES = {
    "api.cohorts": ("phantom", "prepare", "manifest", "info"),
    "api.images": ("synth", "check"),
    "api.scoring": ("evaluate", "compare", "report"),
    "api.training": ("recipes", "starters", "plan", "train", "adapt", "import", "calibrate"),
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
    return _for_python(_checked(described), described)


def _for_python(
    call: Callable[..., Any], described: Callable[..., Any], gives: str = ""
) -> Callable[..., Any]:
    """The same function for Python, whose errors name options as Python does; other doors give their own Reporter.

    gives: the attribute of the result that it returns.
    """

    @functools.wraps(call)
    def run(*args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        is_other = isinstance(kwargs.get("progress"), Reporter)
        stated = parameters_of(described)
        with nullcontext() if is_other else option.words_of_python(stated):
            result = call(*args, **kwargs)
        if not is_other and isinstance(left_out := getattr(result, "left_out", None), dict):
            words = functools.partial(option.in_python, parameters=stated)
            result = replace(result, left_out=reworded(left_out, words))
        return getattr(result, gives) if gives else result

    if gives:
        whole = signature(call)
        kind = get_annotations(whole.return_annotation)[gives]
        run.__signature__ = whole.replace(return_annotation=kind)  # type: ignore[attr-defined]
    return run


def _checked(
    described: Callable[..., Any], keys: Callable[[], Collection[str]] = tuple
) -> Callable[..., Any]:
    """The function with its arguments checked: it raises BadInput for wrong arguments, and for errors of the system.

    Its options may be given by name, and `progress` in several ways; the docstring lists both. keys: see Command.
    """
    own = signature(described)
    parameters = own.parameters
    table: Any = parameters["options"].annotation if "options" in parameters else None
    fields = _fields(table)
    in_python = _in_python(own, table, keys)

    @functools.wraps(described)
    def run(*args: Any, **kwargs: Any) -> Any:
        """Check the arguments, and call the function."""
        from voxlate.base.options.check_values import check_options, check_value  # loads pydantic

        for name in kwargs:
            if name not in parameters and name not in fields:  # the keys load the recipe settings
                known_name(name, "an option", name, [*parameters, *fields, *keys()])
        given = in_python.bind_partial(*args, **kwargs).arguments
        changes = {name: given.pop(name) for name in fields if name in given}
        further = given.pop("changes", {})
        for name in given:
            hint = Feedback if name == "progress" else parameters[name].annotation
            if not _is_table(hint):
                given[name] = check_value(name, given[name], hint)
        if table is not None:
            options = check_options(table, given.get("options"), changes)
            if further:
                options = replace(options, synth={**(options.synth or {}), **further})
            given["options"] = options
        progress = given.pop("progress", True)
        try:
            if "progress" not in parameters:
                return described(**given)
            with report_to(progress) as report:
                return described(**given, progress=report)
        except ModuleNotFoundError as error:
            raise refusal_without(error) from error
        except OSError as error:
            raise system_refusal(error) from error

    text = FLAG.sub(lambda flag: flag[0][2:], f"{described.__doc__}")
    run.__signature__ = in_python  # type: ignore[attr-defined]
    run.__doc__ = with_args(text, _help(parameters, table)).replace("Raises:", RAISES)
    return run


def _in_python(own: Signature, table: Any, keys: Any) -> Signature:
    """The signature in Python: `progress` may be left out, and options are an object or keywords, with any `changes` for keys."""
    parameters = []
    for name, parameter in {**own.parameters, **_fields(table)}.items():
        parameter = parameter.replace(annotation=without_notes(parameter.annotation))
        if name == "progress":
            parameter = parameter.replace(annotation=Feedback, default=True)
        elif name == "options":
            parameter = Parameter(
                name, Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=table | None
            )
        parameters.append(parameter)
    if keys is not tuple:
        parameters.append(Parameter("changes", Parameter.VAR_KEYWORD, annotation=Any))
    return own.replace(parameters=sorted(parameters, key=lambda parameter: parameter.kind))


def _help(own: Mapping[str, Parameter], table: Any) -> list[str]:
    """The parameters of a function in Python, a line each."""
    lines = describe(_stated(own, {PYTHON}))
    if "progress" in own:
        lines.append(
            "progress: True for bars and notes on stderr, False for nothing, or a function (name, done, total, numbers)."
        )
    if table is not None:
        lines.append(
            f"options: {table.__name__}, whose fields, listed below, may also be given by name."
        )
        lines += describe(option.parameters_of(table))
    return lines


def _stated(own: Mapping[str, Parameter], further: Collection[str] = ()) -> Parameters:
    """The parameters that have an Option of the command line, or of further panels."""
    options = {name: option_of(parameter.annotation) for name, parameter in own.items()}
    shown = {ARGUMENT, *PANELS, *further}
    return {name: own[name] for name, one in options.items() if one and one.panel in shown}


def option_in(parameter: Parameter) -> Option:
    """The Option of a parameter that has one."""
    option = option_of(parameter.annotation)
    assert option is not None
    return option


def _is_table(annotation: Any) -> bool:
    """Whether a parameter is of an options dataclass."""
    return is_dataclass(annotation) and annotation is not Reporter


def parameters_of(described: Callable[..., Any]) -> Parameters:
    """The parameters of a function that have an Option, with those of its options dataclasses."""
    parameters = Parameters()
    for name, parameter in signature(described).parameters.items():
        table: Any = parameter.annotation
        parameters |= _stated(_fields(table) if _is_table(table) else {name: parameter})
    return parameters


def _fields(table: Any) -> Parameters:
    """The fields of an options dataclass as keywords: its own first, then those of its bases; none without one."""
    if table is None:
        return {}
    keywords = option.parameters_of(table)
    return {name: keywords[name] for name in field_types(table)}


def schemas_of(parameters: Parameters) -> dict[str, dict[str, Any]]:
    """The JSON schemas of arguments and options: their types, ranges, defaults and help."""
    from voxlate.base.options.check_values import adapter  # loads pydantic

    helps = dict(line.split(": ", 1) for line in describe(parameters))
    schemas = {}
    for name, parameter in parameters.items():
        option = option_in(parameter)
        kind = text_type(parameter.annotation)
        is_table = get_origin(kind) is list and option.read is not None
        stated = {"type": "object"} if is_table else adapter(kind).json_schema()
        if kind in (int, float):
            stated |= {"minimum": option.least, "maximum": option.most}
        stated |= {"default": parameter.default, "description": helps[name]}
        absent = (None, (), parameter.empty)
        schemas[name] = {key: plain(value) for key, value in stated.items() if value not in absent}
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
