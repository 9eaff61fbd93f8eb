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
from voxlate.page.words import ADVICE, LEAST_WORDS, for_page, in_settings

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


def test_no_sentence_of_the_package_reaches_the_page_with_an_option_or_a_command():
    sentences = {
        text
        for path in files()
        for text in _literals(path)
        if len(text.split()) >= LEAST_WORDS and _names(text)
    }
    assert len(sentences) > 200
    left = [text for text in sorted(sentences) if _names(in_settings(text))]
    assert not left, "\n".join(left)


def test_every_message_has_words_for_the_page():
    for code in codes():
        said = for_page(str(message(code, "The finding of the message.")), {})
        assert said.startswith("The finding of the message.")
        assert not _names(said), said


def test_a_refusal_keeps_what_was_expected_and_found_and_what_can_be_done_on_the_page():
    refusal = "--workers: expected 0 to 4 (voxlate prepare), found 7. Choose one of these with --workers N."
    assert in_settings(refusal) == f"workers: expected 0 to 4 (voxlate), found 7. {ADVICE}"
    other = "a.nii: expected a scan, found another. Pass --anyway. Or pass --debug."
    assert in_settings(other) == "a.nii: expected a scan, found another. Pass “Synthesise anyway”."
    name = "head --old t1.nii.gz"  # of a file, which must be found again
    assert in_settings(name) == name


SCRIPTS = [WEB / "static" / f"{name}.js" for name in ("viewer", "upload", "picture", "measure")]


@every_row("path", [*(WEB / "templates").glob("*.html"), *SCRIPTS])
def test_no_template_and_no_script_names_an_option_or_a_command(path):
    text = path.read_text(encoding="utf-8")
    assert not _names(re.sub(r"\{#.*?#\}", "", text, flags=re.DOTALL))
