"""The source `parquet`: a row is a sample. Of the columns only those that are used are read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from toolkit.errors import DataError
from toolkit.files import PathText
from toolkit.identity import Identity
from toolkit.parts import UNHASHED
from toolkit.work import Rows, Work

from ._file import identity, the_file
from ._texts import Cell, Row, Sample, Texts, missing_column, samples_of, tables

if TYPE_CHECKING:
    import polars as pl


class Parquet(Texts):
    """Which file, and what its columns mean."""

    path: PathText = Field(
        min_length=1,
        description="The file, relative to the spec.",
        json_schema_extra=UNHASHED,
    )


def identify(params: Parquet, folder: Path) -> Identity:
    """The file's SHA-256, after a look at every row: what is wrong in it is told before anything
    runs.
    """
    path = the_file(params.path, "Parquet")
    return identity(path, _samples(path, params), params)


def max_rows(params: Parquet, available: Mapping[str, int]) -> Mapping[str, int]:
    """How many samples the file holds: `plan` knows before anything runs."""
    return {"samples": len(_samples(the_file(params.path, "Parquet"), params))}


def read_samples(work: Work) -> Rows:
    """The tables of the file's rows."""
    yield from tables(work, _samples(the_file(work.params.path, "Parquet"), work.params))


def _samples(path: Path, params: Parquet) -> list[Sample]:
    frame = _frame(path, params)
    if frame.is_empty():
        raise DataError(f"{path}: the file has no rows. Write a text a row.")
    rows = [
        Row(f"{path} (row {number})", _cells(path, number, row))
        for number, row in enumerate(frame.iter_rows(named=True))
    ]
    return samples_of(rows, params)


def _frame(path: Path, params: Parquet) -> pl.DataFrame:
    """The columns that are used, in the order of the file."""
    import polars as pl

    try:
        there = list(pl.read_parquet_schema(path))
        for field, name in params.named():
            if name not in there:
                raise missing_column(str(path), field, name, there)
        used = {params.text, params.id, params.unit, params.spans, *params.metadata(there)}
        frame = pl.read_parquet(path, columns=[name for name in there if name in used])
    except (pl.exceptions.PolarsError, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path}: this file cannot be read as Parquet: {first}. Copy or write it again."
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


def _cells(path: Path, number: int, row: Mapping[str, Any]) -> dict[str, Cell]:
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
