"""The pages of docs/papers and docs/design name code, pictures and pages that exist."""

import ast
import json
import re
from pathlib import Path

import pytest

import voxlate

PACKAGE = Path(voxlate.__file__).parent
ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*(ROOT / "docs" / "papers").glob("*.md"), *(ROOT / "docs" / "design").glob("*.md")])
PAPERS = ("mrdpm", "xmodality", "lyu_wang", "umm_csgm", "make_a_volume")


def definitions(path: Path) -> set[str]:
    """The functions, classes and constants of a module, methods as Class.method."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}.{part.name}"
                for part in node.body
                if isinstance(part, ast.FunctionDef)
            }
    return names


def named_code(page: Path) -> list[tuple[str, str]]:
    """The file and the name of each `folder/file.py:name` on a page."""
    return re.findall(r"`([\w/]+\.py):([\w.]+)`", page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_function_that_a_page_names_exists(page):
    for file, name in named_code(page):
        path = (ROOT if file.startswith("tests/") else PACKAGE) / file
        assert path.is_file(), f"{page.name}: {file}"
        assert name in definitions(path), f"{page.name}: {file}:{name}"
    if page.stem in PAPERS:
        assert len(named_code(page)) >= 10, "a page says where its equations are"


def test_each_page_that_the_package_names_exists():
    for path in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.toml")]):
        for name in re.findall(r"docs/[\w/]+\.md", path.read_text()):
            assert (ROOT / name).is_file(), f"{path.relative_to(PACKAGE)}: {name}"


@pytest.mark.parametrize("paper", ["umm_csgm", "make_a_volume"])
def test_the_table_of_a_page_is_what_its_results_give(paper, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import tables

    tables.print_table(paper, 2.0)
    printed = {
        line.split("|", 2)[2] for line in capsys.readouterr().out.splitlines() if "`" in line
    }
    page = (ROOT / "docs" / "papers" / f"{paper}.md").read_text()
    assert len(printed) > 7
    assert [row for row in printed if f"|{row}\n" not in page] == []


@pytest.mark.parametrize("paper", ["umm_csgm", "make_a_volume"])
def test_the_seconds_of_a_page_hold_every_training_of_its_table(paper):
    page = (ROOT / "docs" / "papers" / f"{paper}.md").read_text()
    (stated,) = re.findall(r"\(measured: ([^)]+)\)", page)
    first, last, *others = map(int, re.findall(r"(\d+)(?= s| to)", stated))
    lines = map(json.loads, (ROOT / "benchmarks" / "tables.jsonl").read_text().splitlines())
    seconds = {
        round(line["seconds"]) for line in lines if (line["table"], line["minutes"]) == (paper, 2.0)
    }
    assert [one for one in seconds if not first <= one <= last and one not in others] == []
    assert {first, last, *others} <= seconds
