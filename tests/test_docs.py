"""The site of `make docs`: pages generated from the code, and the table of faults."""

import dataclasses
import re
from pathlib import Path

import generate
import pytest

from voxlate.base.config import key_types, members
from voxlate.evaluation.scoring.metrics import METRICS
from voxlate.training.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]


def section(page, heading):
    """The part of a page below a heading."""
    return page.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_the_page_of_commands_has_every_command_option_and_example():
    page = generate.commands()
    assert len(re.findall(r"^## voxlate ", page, flags=re.M)) == 22
    synth = section(page, "voxlate synth")
    assert "`--samples INT`" in synth
    assert "\nvoxlate synth RUN COHORT --out OUT --split val" in synth
    assert "\\[required\\]" in synth


def every_settings_class(kind):
    found = {kind}
    for hint in key_types(kind).values():
        for member in members(hint):
            found |= every_settings_class(member)
    return found


def test_the_page_of_recipe_keys_has_every_key_of_every_settings_class():
    page = generate.recipe_keys()
    named = {
        field.name for kind in every_settings_class(Recipe) for field in dataclasses.fields(kind)
    } - {"kind"}
    assert len(named) > 150
    assert named == set(re.findall(r"^\| `([a-z_0-9]+)` \|", page, flags=re.M))
    assert "| `low` | required | value that becomes -1, in the volume's unit |" in section(
        page, 'intensity: kind = "window"'
    )
    assert "| `steps` | `10000` |" in section(page, "train")


def test_each_fault_names_a_test_file_that_exists():
    table = (ROOT / "docs" / "reliability.md").read_text()
    files = re.findall(r"\| `([a-z_/]+\.py)` \|$", table, flags=re.M)
    assert len(files) > 15
    assert [path for path in set(files) if not (ROOT / "tests" / path).is_file()] == []


def test_the_pages_of_scores_and_addresses_have_every_metric_and_answer():
    pytest.importorskip("fastapi")
    scores, addresses = generate.scores(), generate.addresses()
    assert all(f"| `{metric.key}` |" in scores for metric in METRICS)
    assert "| `NAME.dice` | Dice |" in scores
    for text in ("`POST /uploads/{name}/synthesise`", "JSON JobState", "## Fit"):
        assert text in addresses
