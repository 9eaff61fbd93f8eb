"""The forms of the page: which options of which commands each one has; all else is in the options' declarations.

The JSON schemas of the options, as programs and agents get them, become the controls of the form (controls.html), and what
a form gives is checked as on the command line.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from starlette.datastructures import FormData

from voxlate.base.errors import known_name
from voxlate.base.options.check import read_text
from voxlate.base.options.option import (
    FLAG,
    INPUT,
    MAIN,
    PLAN,
    PREPARATION,
    SAMPLING,
    flag_of,
    suggestions,
    without_notes,
)
from voxlate.base.options.table import text_type
from voxlate.commands.agents import CLOSED
from voxlate.commands.api import entry

LARGEST_VALUES = {
    "samples": 100,
    "steps": 1000,
    "seed": 2**31 - 1,
}  # the largest values that the page takes
# Tables of keys that would pass by MOST, the server's own limits, and what no form can show. Options that take a path are
# left out, too, unless they have known values.
CLOSED_ON_PAGE = {*CLOSED, "dry_run", "like", "matrix", "max_volume", "synth"}
Schemas = dict[str, dict[str, Any]]
LABELS = {"anyway": "Synthesise anyway"}
FOLDER = {"folder": "New folder below the root folder."}
PLACE = {"place": "Folder below the root folder."}
CASES = {"cohort": "Folder of the true scans, below the root folder."}


@dataclass(frozen=True)
class Form:
    """A form of the page.

    shown: names and panels of options by command, in the order of the form.
    fields: the help of its other fields, the required one first.
    """

    shown: Mapping[str, Sequence[str]] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def options(self) -> entry.Parameters:
        """The options of the form as keywords of their commands."""
        parameters = entry.Parameters()
        for command, names in self.shown.items():
            own = entry.parameters_of(entry.commands()[command].described)
            allowed = [*filter(None, map(_on_page, own.values()))]
            for wanted in names:
                for one in allowed:
                    if wanted in (one.name, entry.option_in(one).panel):
                        parameters[one.name] = one
        return parameters

    @property
    def panels(self) -> dict[str, Schemas]:
        """The JSON schemas of the options by panel, which state the texts that the command line takes."""
        schemas = dict[str, Schemas]()
        for name, stated in entry.schemas_of(self.options).items():
            option = entry.option_in(self.options[name])
            text = option.help.replace("Repeatable", "One a line")
            stated["description"] = FLAG.sub(lambda flag: flag[0][2:], text)
            stated["format"] = option.metavar
            if stated["type"] == "object":
                stated["type"] = "array"
            schemas.setdefault(option.panel, {})[name] = stated
        return schemas

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of the form."""
        own = Schemas()
        for name, text in self.fields.items():
            own[name] = {"type": "array" if name == "runs" else "string", "description": text}
        for panel in self.panels.values():
            own |= panel
        return {"type": "object", "properties": own, "required": [*self.fields][:1]}

    def read(self, form: FormData) -> dict[str, Any]:
        """The options that a form gives, checked as on the command line; empty fields and defaults are left out."""
        known = (*self.fields, *self.options)
        values = {}
        for name in {*form} - {*known}:
            known_name("form", "a known field", name, known)
        for name, parameter in self.options.items():
            text = "\n".join(text for text in form.getlist(name) if isinstance(text, str)).strip()
            hint = parameter.annotation
            value = read_text(name, _parts(text, hint), hint) if text else parameter.default
            if value != parameter.default:
                values[name] = value
        return values


# What the page shows: names and panels of options by command. A new option of a panel is on the form.
FORMS = {
    "synthesise": Form(
        {"synth": ("answer", "samples", "sharpness", "steps", "seed", SAMPLING, "anyway")},
        {"run": "Label of the model.", "scan": "Place of one of its scans, of several that fit."},
    ),
    "survey": Form({"prepare": (MAIN, INPUT, PREPARATION)}, PLACE),
    "prepare": Form(fields=FOLDER),
    "plan": Form({"plan": (MAIN, PLAN), "train": ("changes",)}, PLACE),
    "start": Form(fields=FOLDER),
    "recipe": Form(
        {"train": ("changes", "small", "fold")},
        {**PLACE, "recipe": "Shipped recipe, or a TOML file below the root folder.", **FOLDER},
    ),
    "further": Form({"train": ("steps", "minutes")}, PLACE),
    "calibrate": Form({"calibrate": (MAIN, SAMPLING)}, {**PLACE, **CASES}),
    "compare": Form({"synth": ("split", "samples")}, {"runs": "Folders of the runs.", **CASES}),
}


def _on_page(parameter: Any) -> Any:
    """An option with the limits of the page; None for one that it must not have.

    Where a value is a place of the machine, the page takes the known ones alone, such as the names of presets.
    """
    option = entry.option_in(parameter)
    own = without_notes(parameter.annotation)
    if parameter.name in LARGEST_VALUES:
        option = replace(option, most=LARGEST_VALUES[parameter.name])
    if Path in _types(own):
        text = option.help.replace(" or a TOML file", "")
        option = replace(option, takes=Literal[*suggestions(option, "")], help=text)
    if parameter.name in CLOSED_ON_PAGE or option.takes == Literal[()]:
        return None
    return parameter.replace(annotation=Annotated[own, option])


def _types(hint: Any) -> Iterator[Any]:
    yield hint
    for inner in get_args(hint):
        yield from _types(inner)


def _parts(text: str, hint: Any) -> Any:
    """What `read_text` takes: the text of a field, or its values.

    Values with keys are on a line each; others may be separated by commas or spaces, too.
    """
    if get_origin(text_type(hint)) not in (list, tuple):
        return text
    values = text.splitlines() if "=" in text else text.replace(",", " ").split()
    return [value for value in values if value.strip()]


@cache
def labels() -> dict[str, str]:
    """The labels of the options of all forms, by their names on the command line."""
    shown = [one for form in FORMS.values() for one in form.options.values()]
    return {flag_of(one.name, entry.option_in(one)): label(one.name) for one in shown}


def label(name: str) -> str:
    """The label of an option."""
    return LABELS.get(name) or name.replace("_", " ").capitalize()
