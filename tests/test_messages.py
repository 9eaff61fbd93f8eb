"""Messages: one table of codes, grades that no text changes, and few lines."""

import ast
import re

import generate
import pytest

from sources import files, nodes
from voxlate.base.messages import (
    GRADES,
    Message,
    by_consequence,
    codes,
    message,
    read_messages,
    summarise,
    worst_grade,
)
from voxlate.checks.check_table import COMPARE, OR, ask, table
from voxlate.checks.reference import numbers
from voxlate.commands.cli.terminal import print_messages

DYNAMIC = "truth-"  # codes that are put together from the kind of a fault


KINDS_OF_HEADS = ("head", "brain")


@pytest.fixture(scope="module")
def called():
    """The codes that calls of `message` name."""
    calls = [
        node
        for path in files()
        for node in nodes(path)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "message"
    ]
    codes_of = (call.args[0] for call in calls)
    return {code.value for code in codes_of if isinstance(code, ast.Constant)}


@pytest.fixture(scope="module")
def texts():
    """All texts of the source outside the table of codes."""
    return {
        node.value
        for path in files()
        if path.name != "codes.py"
        for node in nodes(path)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_every_row_of_checks_has_a_code_a_sentence_conditions_and_where_they_were_measured(texts):
    assert len(table()) > 30
    for row in table():
        assert row.group in texts or row.group in KINDS_OF_HEADS, "nothing asks for this group"
        assert row.code in codes()
        assert row.measured.endswith(".")
        for condition in OR.join((*row.when, *row.worse)).split(OR):
            _, sign, limit = condition.split()
            assert sign in COMPARE
            float(limit)
        said = row.message(dict.fromkeys(row.names, 2.0), "t1")
        assert said.grade in codes()[row.code].grades


def test_a_row_speaks_where_all_its_conditions_hold_and_no_number_is_missing():
    assert ask("array", {}) == ask("array", {"twin": float("nan")}) == []
    assert [said.grade for said in ask("array", {"twin": 0.9})] == ["caution"]
    assert [said.grade for said in ask("array", {"twin": 1.0})] == ["do not trust"]
    assert ask("scan", {"ct": 0.0, "even": 0.6, "air": 0.0}) == []


@pytest.mark.parametrize(
    ("air", "even", "between", "brighter", "is_ct"),
    [
        (-1024, 0.4, 0.08, 0.06, True),  # torso
        (-1000, 0.94, 0.0, 0.0, False),  # FLAIR, padded
        (24, 0.65, 0.016, 0.16, True),  # phantom, 1024 added
        (13, 0.78, 0.08, 0.0, False),  # FLAIR, drawn
    ],
)
def test_a_ct_is_told_by_its_values_and_padding_makes_none(air, even, between, brighter, is_ct):
    numbers = {"ct": 0.0, "air": air, "even": even, "between": between, "brighter": brighter}
    assert ["ct-values"] * is_ct == [said.code for said in ask("scan", numbers)]


def test_every_number_of_a_fingerprint_has_a_code_a_tolerance_and_a_sentence():
    shown = {"scan": "the scan", "of": "others", "value": 1.0, "usual": 2.0, "times": 0.5}
    places = dict.fromkeys(("jump_at", "odd_at", "step_at", "step_axis", "level_at"), 3.0)
    for name, number in numbers().items():
        assert codes()[number.code].grades.count("caution") == 1
        assert number.tolerance > 0
        assert number.high or number.low or name == "height_mm"
        for sentence in (number.high, number.low):
            assert "{" not in sentence.format_map({**shown, **places})


def test_every_code_of_the_source_is_in_the_table_and_every_entry_is_used(called, texts):
    assert len(called) > 50
    assert called - codes().keys() == set()
    known = texts | {f"{DYNAMIC}{text}" for text in texts} | {row.code for row in table()}
    known |= {number.code for number in numbers().values()}
    assert [code for code in codes() if code not in known] == []
    assert all(set(entry.grades) <= set(GRADES) for entry in codes().values())


def test_the_page_of_messages_is_the_table():
    rows = re.findall(r"^\| `([\w-]+)` \| ([^|]+) \|", generate.messages(), flags=re.M)
    assert dict(rows) == {code: ", ".join(entry.grades) for code, entry in codes().items()}


def test_a_folder_called_do_not_trust_changes_no_grade_and_the_highest_grade_counts(tmp_path):
    one = message("unchecked", f"{tmp_path}/Do not trust the image. Caution: x is not checked.")
    assert one.grade == "note"
    assert str(one) == one.text
    assert read_messages({"warnings": [one.table]}) == [one]
    worst = Message("brightness", "do not trust", "")
    assert worst_grade([Message("brightness", "caution", ""), worst, one]) == "do not trust"
    assert worst_grade([]) is None


def test_messages_are_ordered_by_grade_and_then_by_what_they_mean_for_the_image():
    assumed, limits, wrong = (message(code, "Text.") for code in ("guess", "starter", "brightness"))
    caution = message("border", "Text.")
    said = [assumed, limits, wrong, caution]
    ordered = [caution, wrong, limits, assumed]
    assert by_consequence(said) == summarise(said) == ordered
    assert read_messages({"warnings": [one.table for one in said]}) == ordered


def test_a_command_prints_a_line_for_each_code_unless_it_is_asked_for_all(capfd):
    kinds = [code for code, one in codes().items() if not one.detail and one.grades[0] == "note"]
    said = [message(code, "Text.", case=case) for code in (*kinds[:7], "border") for case in "abc"]
    for verbose, count in ((False, 8), (True, len(said))):
        with print_messages(verbose) as say:
            for one in said:
                say(one)
        assert len(capfd.readouterr().err.splitlines()) == count
