"""A command is described once, by a function: Python, the command line, `voxlate mcp` and the page's form are made from it.

Its arguments and options are one table of fields (base/option.py), which pydantic checks at every door. The modules of
this folder import what computes inside their functions, so that --help needs none of it.
"""

import functools
import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, is_dataclass
from inspect import Parameter, Signature, cleandoc, signature
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, get_type_hints

from voxlate.base import option
from voxlate.base.errors import BadInput, known_name, system_refusal
from voxlate.base.option import (
    ARGUMENT,
    MainOption,
    Object,
    Option,
    Parameters,
)
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
)
RUNS = Argument(
    "Run folders, exported models, weights files, starter:NAME or hf://NAME/REPO; without any, the installed starters.",
    metavar="[RUN...]",
)
Address = str | Path  # of a hub, whose hf:// would lose a slash as a path
Run = Annotated[Address, RUN]
Out = Annotated[Place, MainOption("Output folder.")]


@dataclass(frozen=True)
class Undone:
    """A missing or untrusted result: the exit code is 3. sentence: "" prints nothing."""

    sentence: str = ""


@dataclass
class Command:
    """Makes a function a command, and returns it as Python has it.

    examples: lines of the end of --help. lines: what is printed of a result and the arguments that were asked: lines, tables,
    messages and Undone. document: the result as plain values. reads: whether
    the command writes no files. waits: whether messages are printed at the end, in a few lines.
    """

    examples: str
    name: str = ""
    lines: Callable[[Any, Any], Iterable[Any]] = lambda *_: ()
    document: Callable[[Any], Any] = lambda result: plain(result)
    reads: bool = False
    waits: bool = False

    def __call__(self, described: Callable[..., Any]) -> Callable[..., Any]:
        """Add the command, and return the function of Python."""
        self.name = self.name or described.__name__.replace("_", "-")
        COMMANDS[self.name] = self
        return self.function(described)

    def function(self, described: Callable[..., Any]) -> Callable[..., Any]:
        """The function of Python, in which the options are keywords, and `progress` may be left out."""
        self.described = described
        own = dict(signature(described).parameters)
        own.pop("progress", None)
        self.given = Parameters()
        for name, parameter in own.items():
            self.given |= _fields(parameter.annotation) or {name: parameter}
        known = self._in_python()

        @functools.wraps(described)
        def run(*args: Any, **kwargs: Any) -> Any:
            """Check the names of the arguments, and call the function."""
            for name in kwargs:
                known_name(name, "an option", name, known.parameters)
            given = known.bind_partial(*args, **kwargs).arguments
            progress = given.pop("progress", True)
            result, _ = self.call(given, progress)
            return result

        run.__signature__ = known  # type: ignore[attr-defined]
        run.__doc__ = self._doc()
        run.stated = self.given  # type: ignore[attr-defined]  # for release/stub.py
        return run

    def _in_python(self) -> Signature:
        """The signature of Python's function."""
        own = signature(self.described)
        notes = {name: one.annotation for name, one in self.given.items()}
        hints = get_type_hints(SimpleNamespace(__annotations__=notes))  # which drops the notes
        stated = [one.replace(annotation=hints[name]) for name, one in self.given.items()]
        if "progress" in own.parameters:
            kind = Parameter.KEYWORD_ONLY
            stated.append(Parameter("progress", kind, default=True, annotation=Feedback))
        ordered = sorted(stated, key=lambda one: one.kind)
        return Signature(ordered, return_annotation=own.return_annotation)

    def _doc(self) -> str:
        """The docstring of Python's function in Google's style: the form feed stands where its arguments are listed."""
        text, _, sections = option.in_python(cleandoc(f"{self.described.__doc__}")).partition(
            "\f\n"
        )
        helps = {name: option.help_of(one) for name, one in self.given.items()}
        listed = [f"{name}: {option.in_python(text)}" for name, text in helps.items()]
        if "progress" in signature(self.described).parameters:
            listed.append(PROGRESS)
        lines = "\n    ".join([f"{text.rstrip()}\n\nArgs:", *listed])
        return f"{lines}\n\n{sections.replace('Raises:', RAISES)}"

    def call(self, given: Mapping[str, Any], progress: Any) -> tuple[Any, Any]:
        """The result of values by name, and the values that were taken, as attributes.

        Raises BadInput for wrong values, and for errors of the system.
        """
        from voxlate.base.config import check_options  # loads pydantic, which --help does not need

        values = check_options(self.table, given)
        parameters = signature(self.described).parameters
        for name, parameter in parameters.items():
            if fields := _fields(parameter.annotation):
                values[name] = parameter.annotation(**{key: values[key] for key in fields})
        arguments = {name: values[name] for name in parameters if name != "progress"}
        try:
            if "progress" not in parameters:
                return self.described(**arguments), SimpleNamespace(**values)
            with report_to(progress) as report:
                return self.described(**arguments, progress=report), SimpleNamespace(**values)
        except ModuleNotFoundError as error:  # what needs another extra asks for it by `Package`
            raise BadInput(
                f"{error.name}: expected this package, such as those of the extra 'train', found it not installed. Run pip install 'voxlate[train]', or install it alone."
            ) from error
        except OSError as error:
            raise system_refusal(error) from error

    @functools.cached_property
    def table(self) -> Any:
        """All arguments and options as one dataclass."""
        return option.table_of(self.given)


COMMANDS = dict[str, Command]()  # those that are imported
MODULES = {
    "commands.api.cohorts": ("phantom", "prepare", "manifest", "info"),
    "commands.api.images": ("synth", "check"),
    "commands.api.scoring": ("evaluate", "compare", "report"),
    "commands.api.choosing": ("recipes", "starters", "plan"),
    "commands.api.training": ("train", "adapt", "import", "calibrate"),
    "commands.api.demo": ("demo",),
    "commands.api.exports": ("export", "push", "listen"),
    "page.server": ("serve",),
    "commands.agents": ("mcp",),
}
# as --help lists them
HOMES = {name: module for module, names in MODULES.items() for name in names}


def commands(names: Iterable[str] = HOMES) -> dict[str, Command]:
    """The commands of these names, which are imported."""
    for name in names:
        importlib.import_module(f"voxlate.{HOMES[name]}")
    return {name: COMMANDS[name] for name in names}


def function(described: Callable[..., Any]) -> Callable[..., Any]:
    """A function of Python that is no command."""
    return Command("").function(described)


def _fields(table: Any) -> Parameters:
    """The fields of an options dataclass as keywords; none of anything else."""
    is_table = is_dataclass(table) and table is not Reporter
    return option.parameters_of(table) if is_table else {}


def plain(value: Any) -> Any:
    """A result as plain values, which JSON can state: its document, if it has one."""
    from pydantic_core import to_jsonable_python  # which --help does not need

    document = getattr(value, "document", value)
    return to_jsonable_python(document() if callable(document) else document, fallback=str)
