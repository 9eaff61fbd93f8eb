"""The pages of docs/papers and docs/design name code, pictures and pages that exist."""

import json
import re
from itertools import compress
from pathlib import Path

import pytest

import tables
import voxlate
from rows import every_row
from voxlate.training.recipe.text import SMALL, head_of, names

PACKAGE = Path(voxlate.__file__).parent
ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*(ROOT / "docs" / "papers").glob("*.md"), *(ROOT / "docs" / "design").glob("*.md")])
PAPERS = ("mrdpm", "xmodality", "lyu_wang", "umm_csgm", "make_a_volume")
# What pages still lack. Each number and list here only becomes smaller.
UNKEPT = {"mrdpm": 2, "xmodality": 2, "lyu_wang": 2, "umm_csgm": 1, "make_a_volume": 1}  # tables
UNMEASURED = {"hi_net_flair_small"}  # whose row on the page is of four trainings, hi_net_small


def tables_of(paper):
    """The rows of each table of a page, the titles of its columns first."""
    return [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", page_of(paper), flags=re.M)]


def page_of(paper):
    return (ROOT / f"docs/papers/{paper}.md").read_text()


def defines(text, name):
    """Whether a module has a function, class, constant or method (as Class.method) at its top level."""
    first, _, method = name.partition(".")
    found = re.search(rf"^(def |class )?{first}\b.*?(?=^\S|\Z)", text, flags=re.M | re.S)
    return found is not None and (not method or f"    def {method}(" in found[0])


@every_row("page", PAGES)
def test_each_function_that_a_page_names_exists(page):
    named = re.findall(r"`([\w/]+\.py):([\w.]+)`", page.read_text())
    for file, name in named:
        path = (ROOT if file.startswith("tests/") else PACKAGE) / file
        assert path.is_file(), f"{page.name}: {file}"
        assert defines(path.read_text(), name), f"{page.name}: {file}:{name}"
    if page.stem in PAPERS:
        assert len(named) >= 10, "a page says where its equations are"


def test_each_page_that_the_package_names_exists():
    for path in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.toml")]):
        for name in re.findall(r"docs/[\w/]+\.md", path.read_text()):
            assert (ROOT / name).is_file(), f"{path.relative_to(PACKAGE)}: {name}"


@pytest.mark.parametrize("paper", ["umm_csgm", "make_a_volume"])
def test_the_table_of_a_page_is_what_its_results_give(paper, capsys):
    tables.print_table(paper, 2.0)
    printed = {
        line.split("|", 2)[2] for line in capsys.readouterr().out.splitlines() if "`" in line
    }
    assert len(printed) > 7
    assert [row for row in printed if f"|{row}\n" not in page_of(paper)] == []
    shown = (
        row for table in tables_of(paper) for row in table if "seeds" in table[0] and "`" in row
    )
    assert [row for row in shown if not row.endswith((*printed,))] == []


@every_row("paper", PAPERS)
def test_each_recipe_in_a_table_ships_with_its_variants_and_no_further_scores_lack_their_lines(
    paper,
):
    heads = [table[0] for table in tables_of(paper)]
    assert len([one for one in heads if "MAE" in one and "seeds" not in one]) <= UNKEPT[paper]
    lacking = set()
    for head, _, *rows in tables_of(paper):
        column = [cell.startswith("recipe") for cell in head.split("|")]
        cells = "".join(cell for row in rows for cell in compress(row.split("|"), column))
        named = re.findall(r"`([a-z]\w+)`", cells)
        small = [f"{name}_small" for name in named if "_small`" in head]
        lacking |= {*named, *small} - {*names()}
    assert not lacking


def test_each_number_at_the_head_of_a_recipe_is_on_the_page_that_it_names():
    for name in names():
        head = head_of(name)
        said = head[head.find("Measured") :].partition("Mean image")[0]
        small = name if f"{name}{SMALL}" not in names() else f"{name}{SMALL}"
        for paper in {*re.findall(r"docs/papers/(\w+)\.md", said)} - {"spread", "dial"}:
            page = page_of(paper)
            assert small in page or name in UNMEASURED, f"{name}: {paper} has no row"
            numbers = re.findall(r"(?:MAE|LPIPS|SSIM|PSNR|Dice of Tmax > 6 s) ([\d.]*\d)", said)
            assert [number for number in numbers if number not in page] == [], name


@every_row("paper", ["umm_csgm", "make_a_volume"])
def test_the_seconds_of_a_page_hold_every_training_of_its_table(paper):
    (stated,) = re.findall(r"\(measured: ([^)]+)\)", page_of(paper))
    first, last, *others = map(int, re.findall(r"(\d+)(?= s| to)", stated))
    lines = map(json.loads, (ROOT / "benchmarks" / "tables.jsonl").read_text().splitlines())
    seconds = {
        round(line["seconds"]) for line in lines if (line["table"], line["minutes"]) == (paper, 2.0)
    }
    assert [one for one in seconds if not first <= one <= last and one not in others] == []
    assert {first, last, *others} <= seconds
