"""Results as pandas DataFrames, where pandas is installed."""

from collections.abc import Iterable, Mapping
from typing import Any

from voxlate.errors import BadInput


def dataframe(rows: Iterable[Mapping[str, Any]]) -> Any:
    """A DataFrame with a row for each mapping; raises BadInput where pandas is not installed."""
    try:
        import pandas  # an extra: nothing else needs it
    except ImportError as error:
        raise BadInput("to_frame: expected pandas, found none. Install it with pip install pandas.") from error
    return pandas.DataFrame(list(rows))
