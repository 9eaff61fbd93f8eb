"""Results as pandas DataFrames, if pandas is installed."""

from collections.abc import Iterable, Mapping
from typing import Any

from voxlate.base.errors import BadInput


def dataframe(rows: Iterable[Mapping[str, Any]]) -> Any:
    """A DataFrame with a row for each mapping; raises BadInput if pandas is not installed."""
    try:
        import pandas  # an optional dependency of this function alone
    except ImportError as error:
        raise BadInput(
            "to_frame: expected pandas, found none. Install it with pip install pandas."
        ) from error
    return pandas.DataFrame(list(rows))
