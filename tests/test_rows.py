"""The decorator that runs a test on every row of a table."""

import pytest

from rows import every_row


def test_all_rows_run_and_the_message_lists_those_that_fail():
    seen = []

    @every_row(("number", "square"), [(1, 1), (2, 5), (3, 9), (4, 15)])
    def squares(number, square):
        seen.append(number)
        assert number**2 == square

    with pytest.raises(pytest.fail.Exception, match="2 of 4 rows failed") as error:
        squares()
    assert seen == [1, 2, 3, 4]
    failed = str(error.value)
    assert "row 1, {'number': 2, 'square': 5}" in failed
    assert "row 3, {'number': 4, 'square': 15}" in failed
    assert "'number': 3" not in failed


@every_row("name", ["a", "b"])
def test_each_row_has_a_folder_and_a_monkeypatch_of_its_own(name, tmp_path, monkeypatch):
    assert not list(tmp_path.iterdir())
    (tmp_path / name).touch()
    with pytest.raises(AttributeError):
        pytest.changed_by_a_row  # noqa: B018
    monkeypatch.setattr(pytest, "changed_by_a_row", True, raising=False)


def test_a_row_with_too_few_values_is_an_error():
    @every_row(("number", "square"), [(1, 1), (2,)])
    def squares(number, square):
        assert number**2 == square

    with pytest.raises(ValueError, match="shorter"):
        squares()
