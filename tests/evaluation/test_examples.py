"""The examples in the docstrings of results that users import."""

import doctest

import pytest

from voxlate.evaluation.compare import Comparison
from voxlate.evaluation.scoring.scores import Scores

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", [Scores, Comparison])
def test_the_example_of_a_result_gives_what_it_shows(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = (
        found for found in doctest.DocTestFinder(recurse=False).find(kind) if found.examples
    )
    assert doctest.DocTestRunner().run(example).failed == 0
