"""What earlier versions, which knew breeds of dogs alone, called the columns that a report reads."""

from __future__ import annotations

import pandas as pd

_NOW = {"breed": "class", "breeds": "classes"}
OLDER_COLUMNS = tuple(_NOW)
"""All of them are of names."""


def with_names_of_now(table: pd.DataFrame) -> pd.DataFrame:
    """Rename the columns of a table that an earlier version wrote."""
    return table.rename(columns=_NOW)
