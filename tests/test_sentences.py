"""Every sentence of an error has three parts: what was expected, what was found, what to do; and no path of a machine."""

import ast
import re

from sources import files, nodes

VALUE = "VALUE"  # stands for what is computed
ERRORS = ("BadInput", "CannotWrite")
MOST_UNREAD = (
    0.075  # share of errors whose sentence is put together elsewhere, or begins in a variable
)
FORM = re.compile(r".*\bexpected .*, found:? .*[.?] [^a-z].*", re.DOTALL)
PLACES = re.compile(r"(?<![\w.])/(?:home|tmp|work|root|usr|mnt)/|[A-Z]:\\\\")
AMERICAN = re.compile(r"\b(?:color|center|normalize|optimize|gray|license)[sd]?\b")


def _text(node):
    """The text of an expression, with VALUE for each of its values."""
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left) + _text(right)
        case ast.IfExp(body=body):
            return _text(body)
    return VALUE


def sentences():
    """The place and the sentence of each error of the package."""
    for path in files():
        for node in nodes(path):
            if isinstance(node, ast.Call) and node.args and getattr(node.func, "id", "") in ERRORS:
                yield f"{path}:{node.lineno}", _text(node.args[0])


def test_every_error_says_what_was_expected_what_was_found_and_what_to_do():
    every = dict(sentences())
    assert len(every) > 400
    unread = {place: text for place, text in every.items() if not FORM.fullmatch(text)}
    whole = [place for place, text in unread.items() if VALUE not in text.split()[0]]
    assert not whole
    assert len(unread) <= MOST_UNREAD * len(every), "\n".join(unread)


def test_no_error_names_a_place_of_a_machine_or_spells_as_americans_do():
    wrong = [
        (place, text) for place, text in sentences() if PLACES.search(text) or AMERICAN.search(text)
    ]
    assert not wrong
