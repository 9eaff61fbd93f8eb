"""The form of a synthesis: the options of `voxlate synth` that the page has, as they are declared.

Their JSON schemas are those that programs get, and what the form gives is checked as on the command line. Settings of the
sampling stay with the command line: the intervals hold for those of the calibration alone.
"""

from typing import Any

from starlette.datastructures import FormData

from voxlate.base.config import check_options
from voxlate.base.errors import known_name
from voxlate.base.option import Parameters, flag_of, table_of
from voxlate.commands.api.entry import commands
from voxlate.commands.api.schemas import schemas_of

LABELS = {"answer": "Prediction", "anyway": "Synthesise anyway"}  # of the options, by name
FIELDS = {"run": "Label of the model."}


def _options() -> Parameters:
    """The options of the form as keywords of the command."""
    declared = commands(["synth"])["synth"].given
    return Parameters({name: declared[name] for name in LABELS})


OPTIONS = _options()
TABLE = table_of(OPTIONS)
SCHEMA = {
    "type": "object",
    "properties": {
        **{name: {"type": "string", "description": text} for name, text in FIELDS.items()},
        # the words in which refusals name them
        **{name: {"title": LABELS[name], **one} for name, one in schemas_of(OPTIONS).items()},
    },
    "required": ["run"],
}
# the labels of the options by their names on the command line
LABELS_OF_FLAGS = {flag_of(name): text for name, text in LABELS.items()}


def read_options(form: FormData) -> dict[str, Any]:
    """The options that a form gives, checked as on the command line."""
    known = (*FIELDS, *OPTIONS)
    for name in form:
        known_name("form", "a known field", name, known)
    given = {name: text for name in OPTIONS if (text := text_in(form, name))}
    values = check_options(TABLE, given)
    return {name: values[name] for name in given}


def text_in(form: FormData, name: str) -> str:
    """The text of a field of a form; "" for none."""
    value = form.get(name, "")
    return value.strip() if isinstance(value, str) else ""
