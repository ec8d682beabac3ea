"""The source `csv`: one sample per row. The file's content enters step keys; its path does not."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from toolkit.errors import DataError
from toolkit.files.local import PathText
from toolkit.parts import UNHASHED

from ._file import not_utf8
from ._texts import Row, Sample, Texts, missing_column, samples_of


class Csv(Texts):
    """Which file, and what its columns mean."""

    numbers_in_texts: ClassVar[bool] = True

    path: PathText = Field(
        min_length=1,
        description="The file, relative to the spec; UTF-8.",
        json_schema_extra=UNHASHED,
    )


def read_file(path: Path, params: Csv) -> list[Sample]:
    """The samples of a CSV file."""
    with _long_cells():
        try:
            return samples_of(list(_rows(path, params)), params)
        except UnicodeDecodeError:
            raise not_utf8(path, lambda line: _row_at(path, line)) from None


def _rows(path: Path, params: Csv) -> Iterator[Row]:
    lines = _lines(path)
    _, header = next(lines, (1, []))
    _check_header(path, header, params)
    number = 0
    for number, (line, cells) in enumerate(lines, 1):
        where = f"{path}:{line} (row {number})"
        if len(cells) != len(header):
            raise DataError(
                f"{where}: this row has {len(cells)} cells, the header {len(header)}. "
                f"Put double quotes around a cell with commas or newlines in it."
            )
        yield Row(
            where, {name: cell for name, cell in zip(header, cells, strict=True) if cell.strip()}
        )
    if not number:
        raise DataError(f"{path}:1: there are no rows below the header. Add one row per sample.")


def _row_at(path: Path, line: int) -> int | None:
    """The row that a line belongs to; None for the header and where the CSV cannot be read."""
    row = None
    try:
        for number, (first_line, _) in enumerate(_lines(path, errors="replace")):
            if first_line > line:
                break
            row = number
    except DataError:
        return None
    return row


def _lines(path: Path, errors: str = "strict") -> Iterator[tuple[int, list[str]]]:
    """Each row's cells, with the line on which it begins; blank lines are skipped."""
    with path.open(encoding="utf-8-sig", errors=errors, newline="") as file:
        reader, first_line, row = csv.reader(file, strict=True), 1, 0
        try:
            for cells in reader:
                if cells:
                    yield first_line, cells
                    row += 1
                first_line = reader.line_num + 1
        except csv.Error as error:
            where = f"{path}:{first_line} (row {row})" if row else f"{path}:{first_line}"
            raise DataError(
                f"{where}: this is not valid CSV: {error}. Put double quotes around cells, "
                "and double the quotes inside."
            ) from None


@contextmanager
def _long_cells() -> Iterator[None]:
    """Allow cells of any length: the model itself refuses a text that is too long for it."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _check_header(path: Path, header: Sequence[str], params: Csv) -> None:
    if not header:
        raise DataError(
            f"{path}:1: the file is empty. Its first line names the columns, one of them "
            f"'{params.text}'."
        )
    if doubled := [name for name, count in Counter(header).items() if count > 1]:
        raise DataError(
            f"{path}:1: there are {header.count(doubled[0])} columns '{doubled[0]}'. Give each its "
            "own name."
        )
    for field, name in params.named():
        if name not in header:
            raise missing_column(f"{path}:1", field, name, header)
