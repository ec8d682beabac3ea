"""`measure.games`: measures of played games. Every command imports this module, so what needs NumPy
is imported when the stage runs.
"""

from __future__ import annotations

from toolkit.parts import NoParams
from toolkit.tables import arrow_schema
from toolkit.work import Rows, Work


class MeasureGames(NoParams):
    """It has no params: what is measured follows from the conditions of the games."""


def measure(work: Work) -> Rows:
    """Rows of `measures`."""
    import pyarrow as pa

    from .measures import measures_of

    yield "measures", pa.Table.from_pylist(measures_of(work), schema=arrow_schema("measures"))
