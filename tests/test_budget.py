"""The house shrinks: tokens of each wing and of tests, words of docs, and what a reader of one wing must read."""

import io
import tokenize
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

from sources import ROOT, files, imported_files, text_of

REPOSITORY = Path(__file__).parents[1]
BUDGET = tomllib.loads((REPOSITORY / "tests" / "budget.toml").read_text())
ROOM = 0.97  # share of a budget below which its number is to be lowered
LAYOUT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
}  # fmt: skip
MOST_OF_SCIENCE = 75_000  # tokens that whoever comes for a paper has to read at most


@cache
def tokens_of(text):
    """The number of tokens of a Python source, without comments and layout."""
    kinds = (token.type for token in tokenize.generate_tokens(io.StringIO(text).readline))
    return sum(kind not in LAYOUT for kind in kinds)


@cache
def used():
    """Tokens of each wing, and of tests."""
    count = Counter[str]()
    for path in files():
        if len(path.parts) > 1:
            count[path.parts[0]] += tokens_of(text_of(path))
    texts = (path.read_text() for path in (REPOSITORY / "tests").rglob("*.py"))
    count["tests"] = sum(map(tokens_of, texts))
    return count


def words_of_docs():
    """The words of all pages, as wc counts them."""
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]
    own = (page for page in pages if not {"generated", "_build"} & {*page.parts})
    return sum(len(page.read_text().split()) for page in own)


def test_nothing_exceeds_its_budget():
    over = {name: count for name, count in used().items() if count > BUDGET["tokens"][name]}
    assert not over, f"of {BUDGET['tokens']}"
    assert words_of_docs() <= BUDGET["words"]["docs"]


def test_a_budget_is_lowered_where_a_wing_has_shrunk():
    low = {name: count for name, count in used().items() if count < ROOM * BUDGET["tokens"][name]}
    assert not low, "lower the numbers of tests/budget.toml to these"
    assert words_of_docs() >= ROOM * BUDGET["words"]["docs"]


def test_no_line_is_packed():
    texts = [text_of(path) for path in files()]
    lines = [line for text in texts for line in text.splitlines() if line.strip()]
    assert sum(map(tokens_of, texts)) / len(lines) <= BUDGET["tokens_a_line"]


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
    for wing in BUDGET["tokens"].keys() - {"tests"}:
        said = (ROOT / wing / "__init__.py").read_text()
        assert 2 <= len(said.strip().splitlines()) <= 6, wing
