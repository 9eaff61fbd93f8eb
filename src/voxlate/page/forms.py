"""The form of a synthesis: options of `voxlate synth`, as they are declared.

Their JSON schemas, as programs and agents get them, become the controls of the form (controls.html), and what the form
gives is checked as on the command line.
"""

from dataclasses import replace
from typing import Annotated, Any

from starlette.datastructures import FormData

from voxlate.base.config import check_options
from voxlate.base.errors import known_name
from voxlate.base.option import Parameters, flag_of, option_in, table_of, without_notes
from voxlate.commands.api.entry import commands
from voxlate.commands.api.schemas import schemas_of

NAMES = (
    "answer",
    "samples",
    "sharpness",
    "steps",
    "seed",
    "noise",
    "sampler",
    "eta",
    "schedule",
    "slices",
    "anyway",
)
# the largest values that the page takes
LARGEST_VALUES = {"samples": 100, "steps": 1000, "seed": 2**31 - 1}
FIELDS = {"run": "Label of the model."}


def label(name: str) -> str:
    """The label of an option."""
    return "Synthesise anyway" if name == "anyway" else name.capitalize()


def _options() -> Parameters:
    """The options of the form as keywords of the command, with the limits of the page."""
    declared = commands(["synth"])["synth"].given
    parameters = Parameters()
    for name in NAMES:
        option = option_in(declared[name])
        option = replace(option, most=LARGEST_VALUES.get(name, option.most))
        hint = without_notes(declared[name].annotation)
        parameters[name] = declared[name].replace(annotation=Annotated[hint, option])
    return parameters


OPTIONS = _options()
TABLE = table_of(OPTIONS)
SCHEMA = {
    "type": "object",
    "properties": {
        **{name: {"type": "string", "description": text} for name, text in FIELDS.items()},
        # the words in which refusals name them
        **{name: {"title": label(name), **schema} for name, schema in schemas_of(OPTIONS).items()},
    },
    "required": ["run"],
}
# the labels of the options by their names on the command line
LABELS = {flag_of(name): label(name) for name in OPTIONS}


def read_options(form: FormData) -> dict[str, Any]:
    """The options that a form gives, checked as on the command line; empty fields and defaults are left out."""
    known = (*FIELDS, *OPTIONS)
    for name in form:
        known_name("form", "a known field", name, known)
    given = {name: text for name in OPTIONS if (text := text_in(form, name))}
    values = check_options(TABLE, given)
    return {name: values[name] for name in given if values[name] != OPTIONS[name].default}


def text_in(form: FormData, name: str) -> str:
    """The text of a field of a form; "" for none."""
    value = form.get(name, "")
    return value.strip() if isinstance(value, str) else ""
