"""The pages of docs/papers and docs/design name code, pictures and pages that exist."""

import re
from itertools import compress
from pathlib import Path

import voxlate
from rows import every_row
from voxlate.training.recipe.text import head_of, names

PACKAGE = Path(voxlate.__file__).parent
ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*(ROOT / "docs" / "papers").glob("*.md"), *(ROOT / "docs" / "design").glob("*.md")])
PAPERS = ("mrdpm", "xmodality", "lyu_wang", "umm_csgm", "make_a_volume")


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


@every_row("paper", PAPERS)
def test_each_recipe_in_a_table_ships_with_its_variants(paper):
    lacking = set()
    for head, _, *rows in tables_of(paper):
        column = [cell.startswith("recipe") for cell in head.split("|")]
        cells = "".join(cell for row in rows for cell in compress(row.split("|"), column))
        named = re.findall(r"`([a-z]\w+)`", cells)
        small = [f"{name}_small" for name in named if "_small`" in head]
        lacking |= {*named, *small} - {*names()}
    assert not lacking


def test_the_head_of_a_recipe_states_no_score_where_a_page_has_its_table():
    for name in names():
        said = head_of(name).partition("Measured")[2]
        if any(f"docs/papers/{paper}.md" in said for paper in PAPERS):
            assert not re.search(r"(?:MAE|LPIPS|SSIM|PSNR|Dice)\D{0,12}\d", said), name
