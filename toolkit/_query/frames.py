"""The polars frame of an answer."""

from __future__ import annotations

import polars as pl

from toolkit._query.html import table_html


class ResultFrame(pl.DataFrame):
    """A polars frame that a notebook shows as the command line does: addresses, short numbers,
    whole texts, without empty columns.
    """

    def _repr_html_(self, *, _from_series: bool = False) -> str:
        return table_html(self)
