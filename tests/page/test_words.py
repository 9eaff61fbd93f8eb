"""What the page says names no option and no command, whatever the message was written for."""

import ast
import re
from pathlib import Path

import pytest

import voxlate
from rows import every_row
from sources import files, nodes
from voxlate.base.messages import codes, message

pytest.importorskip("markupsafe", reason="the page needs the extra serve")
from voxlate.commands.api.entry import HOMES
from voxlate.page.words import END, for_page, in_settings

WEB = Path(voxlate.__file__).parent / "page"
# Independent of the code that leaves them out: an option, or a command line.
OPTION = re.compile(r"(?<![\w-])--[a-z]")
NAMES = [*HOMES]
COMMAND = re.compile(rf"\bvoxlate ({'|'.join(NAMES)})\b")


def _names(text):
    return bool(OPTION.search(text) or COMMAND.search(text))


def _literals(path):
    """The texts in a file's code, without docstrings; a value in a text is an x."""
    inner = set[int]()
    for node in nodes(path):
        if isinstance(node, ast.JoinedStr):
            inner |= {id(part) for part in ast.walk(node) if part is not node}
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            inner.add(id(node.value))
    for node in nodes(path):
        if id(node) in inner:
            continue
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                part.value if isinstance(part, ast.Constant) else "x" for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_no_advice_of_the_package_reaches_the_page_with_an_option_or_a_command():
    texts = {text for path in files() for text in _literals(path) if _names(text)}
    assert len(texts) > 200
    advice = [sentence for text in texts for sentence in END.split(in_settings(text))[1:]]
    assert not [*filter(_names, advice)]


def test_every_message_has_words_for_the_page():
    for code in codes():
        said = for_page(str(message(code, "The finding of the message.")), {})
        assert said.startswith("The finding of the message.")
        assert not _names(said), said


def test_a_refusal_keeps_what_was_expected_and_found_and_what_can_be_done_on_the_page():
    other = "a.nii: expected a scan, found another. Pass --anyway. Or pass --debug."
    assert in_settings(other) == "a.nii: expected a scan, found another. Pass “Synthesise anyway”."


SCRIPTS = [WEB / "static" / f"{name}.js" for name in ("viewer", "upload", "picture", "measure")]


@every_row("path", [*(WEB / "templates").glob("*.html"), *SCRIPTS])
def test_no_template_and_no_script_names_an_option_or_a_command(path):
    text = path.read_text(encoding="utf-8")
    assert not _names(re.sub(r"\{#.*?#\}", "", text, flags=re.DOTALL))
