"""One test for a law that holds in every row of a table."""

import inspect
import traceback
from functools import wraps

import pytest

slow = pytest.mark.slow


def every_row(names, rows):
    """Run a test on all rows, as pytest.mark.parametrize does, but as one test whose message lists the rows that fail.

    Rows share fixtures, but for the folder `tmp_path` and `monkeypatch`, which each row has for itself.
    """
    keys = tuple(name.strip() for name in names.split(",")) if isinstance(names, str) else names
    table = list(rows)

    def decorate(test):
        signature = inspect.signature(test)
        fixtures = [one for name, one in signature.parameters.items() if name not in keys]

        @wraps(test)
        def on_all_rows(**given):
            failures = []
            for number, row in enumerate(table):
                values = dict(zip(keys, row if len(keys) > 1 else (row,), strict=True))
                own = dict(given)
                if "tmp_path" in given:
                    own["tmp_path"] = given["tmp_path"] / f"row{number}"
                    own["tmp_path"].mkdir()
                with pytest.MonkeyPatch.context() as patch:
                    if "monkeypatch" in given:
                        own["monkeypatch"] = patch
                    try:
                        test(**own, **values)
                    except (Exception, pytest.fail.Exception) as error:
                        place = "".join(traceback.format_tb(error.__traceback__, limit=-1))
                        failures.append(
                            f"row {number}, {values}:\n{place}{type(error).__name__}: {error}"
                        )
            if failures:
                pytest.fail(
                    f"{len(failures)} of {len(table)} rows failed\n\n" + "\n\n".join(failures),
                    pytrace=False,
                )

        on_all_rows.__signature__ = signature.replace(parameters=fixtures)  # type: ignore[attr-defined]
        return on_all_rows

    return decorate
