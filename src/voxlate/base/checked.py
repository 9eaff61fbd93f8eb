"""Values of options and arguments, checked by their declarations: a wrong one is one sentence, which is the same at every door."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from voxlate.base.config import adapter, converted
from voxlate.base.errors import BadInput
from voxlate.base.option import ARGUMENT, PYTHON, field_types, flag_of, option_of, text_type

LONGEST = 60  # characters of a value in a message
WORDS = {  # pydantic's, and ours
    "a valid boolean": "True or False",
    "a valid dictionary": "a table",
    "a valid integer": "a whole number",
    "a valid mapping": "a table",
    "a valid number": "a number",
    "a valid path": "a path",
    "a valid string": "a text",
    "an instance of Sequence": "a list",
    "String should have at least 1 character": "a text that is not empty",
}


def checked(table: Any, given: Mapping[str, Any], texts: bool = False) -> dict[str, Any]:
    """The fields of a dataclass from these of its values, each checked by its type and its Option.

    texts: whether numbers may be texts, as on the command line. Raises BadInput for the first wrong value.
    """
    plain = {name: _plain(value) for name, value in given.items()}
    types_of = field_types(table)
    try:
        values = vars(adapter(table).validate_python(plain))
    except ValidationError as error:
        wrong = sorted(error.errors(), key=lambda one: one["loc"][0] not in plain)
        name = str(wrong[0]["loc"][0])
        if name not in plain:
            raise BadInput(
                f"{_label(name, types_of)}: expected a value, found none. Give it."
            ) from error
        own = [one for one in wrong if one["loc"][0] == name]
        stated = (one.get("ctx", {}).get("error") for one in own)
        if refusal := next((one for one in stated if isinstance(one, BadInput)), None):
            raise BadInput(f"{_label(name, types_of)}: {refusal}") from error
        expected = _expected(own, types_of[name])
    else:
        taken = {name: values[name] for name in plain if not _is_read(plain[name], types_of[name])}
        for key, _, after in () if texts else converted(plain, taken):
            name, expected = key.partition(".")[0], f"a value such as {after!r}"
            break
        else:
            return values
    raise BadInput(
        f"{_label(name, types_of)}: expected {expected}, found {_show(given[name])}. Change it."
    )


def _is_read(value: Any, hint: Any) -> bool:
    """Whether a value was one text, of which its Option made another value."""
    option = option_of(hint)
    return isinstance(value, str) and option is not None and option.read is not None


def _label(name: str, types_of: Mapping[str, Any]) -> str:
    """The name of an option, or of an argument, in a message."""
    option = option_of(types_of[name])
    return name if option is None or option.panel in (ARGUMENT, PYTHON) else flag_of(name)


def _expected(errors: Sequence[Any], hint: Any) -> str:
    """What pydantic's errors expect of one value."""
    kind = text_type(hint)
    if get_origin(kind) is tuple:
        return f"{len(get_args(kind))} numbers"
    texts = (re.sub(r"^(Input (should be|is not)|Value error,) ", "", one["msg"]) for one in errors)
    plain = (
        text if "'" in text.partition(" for ")[0] else text.partition(",")[0] for text in texts
    )
    return " or ".join(dict.fromkeys(WORDS.get(text.partition(" for ")[0], text) for text in plain))


def _plain(value: Any) -> Any:
    """Python's own numbers and lists for those of NumPy; scans and other values as they are; no bytes, which are no text."""
    if type(value).__module__ == "numpy" and hasattr(value, "tolist") and value.ndim < 2:
        return value.tolist()
    return object() if isinstance(value, bytes) else value


def _show(value: Any) -> str:
    """A value and its type, for a message; of arrays the shapes and types."""
    if shape := getattr(value, "shape", ()):  # numbers of NumPy have an empty one
        return f"{type(value).__name__} of the shape {tuple(shape)}"
    if isinstance(value, tuple) and any(getattr(part, "shape", ()) for part in value):
        return f"({', '.join(map(_show, value))})"
    if isinstance(value, list | tuple) and value and all(isinstance(part, str) for part in value):
        return repr(" ".join(value))  # several texts of the command line
    text = " ".join(repr(value).split())
    kind = "" if isinstance(value, str) else f" ({type(value).__name__})"
    return f"{text[:LONGEST]}{'…' if len(text) > LONGEST else ''}{kind}"
