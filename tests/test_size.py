"""The size of the house: ceilings of tokens and files, and what a reader of the science has to read."""

import io
import subprocess
import sys
import tokenize
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from sources import ROOT, files, imported_files, text_of
from test_imports import MAY_IMPORT

REPOSITORY = Path(__file__).parents[1]
CEILINGS = REPOSITORY.parent / "shared" / "layout" / "size.toml"
COUNTED = {tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING}
OTHERS = "benchmarks_fuzz_release"
PARTS = {"src": "src", "tests": "tests", **dict.fromkeys(OTHERS.split("_"), OTHERS)}  # of folders
MOST_OF_SCIENCE = 75_000  # tokens that whoever comes for a paper has to read at most


@cache
def tokens_of(text):
    """The number of tokens of a Python source, without comments and layout."""
    kinds = (token.type for token in tokenize.generate_tokens(io.StringIO(text).readline))
    return sum(kind in COUNTED for kind in kinds)


def tracked_python_files():
    listing = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=REPOSITORY, capture_output=True, text=True
    )
    if listing.returncode != 0:
        pytest.skip("the sources are not a git checkout, so tracked files are not known")
    paths = (REPOSITORY / line for line in listing.stdout.splitlines())
    return [path for path in paths if path.exists()]


@pytest.mark.skipif(not CEILINGS.exists(), reason="the ceilings are not beside this checkout")
@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="an f-string is one token in Python 3.11 only"
)
def test_nothing_exceeds_its_ceiling():
    ceilings = tomllib.loads(CEILINGS.read_text("utf-8"))
    size = Counter[str]()
    for path in tracked_python_files():
        part = path.relative_to(REPOSITORY).parts[0]
        if part in PARTS:
            size[PARTS[part]] += tokens_of(path.read_text("utf-8"))
            size["files_in_src"] += part == "src"
    over = {name: size[name] for name, most in ceilings.items() if size[name] > most}
    assert not over, f"of {ceilings}"


def test_a_reader_of_science_reads_little_else():
    reached, todo = set[Path](), [path for path in files() if path.parts[0] == "science"]
    while todo:
        path = todo.pop()
        if path not in reached:
            reached.add(path)
            todo += imported_files(path)
    assert {path.parts[0] for path in reached} == {"science", "base"}
    assert sum(tokens_of(text_of(path)) for path in reached) <= MOST_OF_SCIENCE


def test_each_wing_says_in_few_lines_what_lives_there():
    for wing in MAY_IMPORT:
        said = (ROOT / wing / "__init__.py").read_text()
        assert 2 <= len(said.strip().splitlines()) <= 6, wing


def test_no_file_name_stands_twice():
    names = Counter(path.name for path in files() if path.name != "__init__.py")
    assert not [name for name, count in names.items() if count > 1]


def test_no_two_modules_on_the_path_of_the_tests_have_one_name():
    folders = ("benchmarks", "docs", "fuzz", "release", "tests")
    paths = [path for name in folders for path in (REPOSITORY / name).rglob("*.py")]
    stems = Counter(path.stem for path in paths if path.stem != "conftest")
    assert set(stems.values()) == {1}
