"""The source `parquet`: one sample per row. Only the columns that are used are read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from toolkit.errors import DataError
from toolkit.files.local import PathText
from toolkit.parts import UNHASHED

from ._texts import Cell, Row, Sample, Texts, missing_column, samples_of

if TYPE_CHECKING:
    import polars as pl


class Parquet(Texts):
    """Which file, and what its columns mean."""

    path: PathText = Field(
        min_length=1,
        description="The file, relative to the spec.",
        json_schema_extra=UNHASHED,
    )


def read_file(path: Path, params: Parquet) -> list[Sample]:
    """The samples of a Parquet file."""
    frame = used_columns(path, params)
    if frame.is_empty():
        raise DataError(f"{path}: the file has no rows. Write one text per row.")
    rows = [
        Row(f"{path} (row {number})", row_cells(path, number, row))
        for number, row in enumerate(frame.iter_rows(named=True), 1)
    ]
    return samples_of(rows, params)


def used_columns(path: Path, params: Texts) -> pl.DataFrame:
    """The columns that are used, in file order."""
    import polars as pl

    try:
        file_columns = list(pl.read_parquet_schema(path))
        for field, name in params.named():
            if name not in file_columns:
                raise missing_column(str(path), field, name, file_columns)
        used = {params.text, params.id, params.unit, params.spans, *params.metadata(file_columns)}
        frame = pl.read_parquet(path, columns=[name for name in file_columns if name in used])
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path}: this file cannot be read as Parquet: {reason}. Copy or write it again."
        ) from None
    return frame.select(_plain(path, frame[name]) for name in frame.columns)


def _plain(path: Path, column: pl.Series) -> pl.Series:
    """The column as texts or numbers; dates and times are texts."""
    import polars as pl

    kind = column.dtype
    if kind == pl.Boolean:
        return column.replace_strict({True: "true", False: "false"}, return_dtype=pl.String)
    if kind.is_numeric():
        return column.cast(pl.Float64)
    if kind.is_temporal() or kind in (pl.Categorical, pl.Enum, pl.String, pl.Null):
        return column.cast(pl.String)
    raise DataError(
        f"{path}: column '{column.name}' holds {kind}; samples are made of texts, numbers, dates "
        "and true or false. Name the columns that you want with `columns`."
    )


def row_cells(path: Path, number: int, row: Mapping[str, Any]) -> dict[str, Cell]:
    """The cells of a row; null, NaN and blank texts are left out."""
    cells: dict[str, Cell] = {}
    for name, value in row.items():
        if value is None or (isinstance(value, float) and math.isnan(value)):
            continue
        if isinstance(value, float) and math.isinf(value):
            raise DataError(
                f"{path} (row {number}): '{name}' holds an infinite number; metadata are finite. "
                "Leave the cell empty, or write it as a text."
            )
        if not isinstance(value, str) or value.strip():
            cells[name] = value
    return cells
