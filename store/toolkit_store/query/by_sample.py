"""What is active on one sample, from its rows of `activations`, which a B-tree finds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toolkit.tables import arrow_schema
from toolkit_store.filters import among, equals
from toolkit_store.query.committed_rows import CommittedRows

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import pyarrow as pa

_COLUMNS = ("position", "features", "values")


def rows_of(rows: CommittedRows, sample: str, space: str | None) -> pa.Table:
    """The rows of a sample, of all spaces or of one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if space is None:
        result = rows.find("activations", equals("sample", sample), ["space", *_COLUMNS, "step"])
    else:
        result = rows.find(
            "activations",
            f"{equals('sample', sample)} AND {equals('space', space)}",
            [*_COLUMNS, "step"],
        )
        result = result.append_column("space", pa.repeat(space, result.num_rows))
    return result.filter(pc.is_in(result["step"], value_set=pa.array(rows.cover, pa.string())))


def values_at(
    rows: CommittedRows, space: str, feature: int, samples: Sequence[str]
) -> pl.DataFrame:
    """Sample, position and value of a feature at every stored position of these samples, 0 where it
    did not fire; of a place stored twice, the larger value.
    """
    import numpy as np
    import polars as pl
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = ["sample", *_COLUMNS, "step"]
    of_space = equals("space", space)
    parts = [
        rows.find("activations", f"{where} AND {of_space}", columns)
        for where in among("sample", samples)
    ]
    empty = arrow_schema("activations", step=True).empty_table().select(columns)
    found = pa.concat_tables([empty, *parts])
    found = found.filter(pc.is_in(found["step"], value_set=pa.array(rows.cover, pa.string())))
    features, fired = (pc.list_flatten(found[name]).to_numpy() for name in ("features", "values"))
    numbers = np.repeat(
        np.arange(found.num_rows), pc.list_value_length(found["features"]).to_numpy()
    )
    own = features == feature
    values = np.zeros(found.num_rows, fired.dtype)
    values[numbers[own]] = fired[own]
    places = pl.DataFrame(found.select(["sample", "position"]))
    frame = places.with_columns(pl.Series("value", values))
    return (
        frame.group_by("sample", "position").agg(pl.col("value").max()).sort("sample", "position")
    )


def entries_of(rows: pa.Table) -> pl.DataFrame:
    """Space, position, feature and value, the strongest first at each position; an entry that two
    steps stored is returned once.
    """
    import numpy as np
    import polars as pl
    import pyarrow.compute as pc

    spaces = pc.unique(rows["space"]).sort()
    lengths = pc.list_value_length(rows["features"]).to_numpy()
    numbers = np.repeat(pc.index_in(rows["space"], value_set=spaces).to_numpy(), lengths)
    positions = np.repeat(rows["position"].to_numpy(), lengths)
    features, values = (pc.list_flatten(rows[name]).to_numpy() for name in ("features", "values"))
    order = _ordered(numbers, positions, features, values)
    whose = pl.Series("space", spaces)[numbers[order]]
    columns = {"position": positions, "feature": features, "value": values}
    return pl.DataFrame(
        [whose, *(pl.Series(name, column[order]) for name, column in columns.items())]
    )


def _ordered(
    numbers: np.ndarray, positions: np.ndarray, features: np.ndarray, values: np.ndarray
) -> np.ndarray:
    """The entries in the order of space, position, falling value and feature; of an entry stored
    twice, the larger value.
    """
    import numpy as np

    by_entry = np.lexsort((-values, features, positions, numbers))
    new = np.ones(len(by_entry), bool)
    columns = (column[by_entry] for column in (numbers, positions, features))
    new[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    once = by_entry[new]
    order: np.ndarray = once[
        np.lexsort((features[once], -values[once], positions[once], numbers[once]))
    ]
    return order
