"""The source `csv`: a row is a sample. The file enters keys by what it holds, never by where it lies."""

from __future__ import annotations

import csv
import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from toolkit.errors import BadInput, DataError, nearest
from toolkit.files import PathText, locate
from toolkit.records import UNHASHED, Identity, Params, Rows, Work
from toolkit.tables import arrow_schema

if TYPE_CHECKING:
    from toolkit.models import Tokens

NUMBER = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
"""What is read as a number. With a zero in front it is a name (`007`)."""


class Csv(Params):
    """Which file, and what its columns mean."""

    path: PathText = Field(min_length=1, description="The file, relative to the spec; UTF-8.", json_schema_extra=UNHASHED)
    text: str = Field("text", min_length=1, description="The column that holds the text.")
    unit: str | None = Field(
        None, min_length=1, description="The column that names a sample's unit; without it, each row is one."
    )
    chat: bool = Field(False, description="Put the model's chat template around each text, as a user's message.")
    columns: tuple[str, ...] | None = Field(None, description="The columns that become metadata; without it, all others.")


@dataclass(frozen=True)
class _Row:
    """A sample to be: its id, the line of the file where it begins, and its cells by column."""

    sample: str
    line: int
    unit: str
    cells: dict[str, str]


def identify(params: Csv, folder: Path) -> Identity:
    """The file's SHA-256, after a look at its header: a wrong column is told before anything runs."""
    path = _file(params)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _, header = next(_lines(path), (1, []))
    _check_header(path, header, params)
    return Identity(name=path.name, revision=digest[:12], digest=digest, facts={"bytes": path.stat().st_size})


def read_samples(work: Work) -> Rows:
    """Tokenise each text, and give its other columns as metadata: numbers where a whole column holds numbers."""
    import pyarrow as pa

    path = _file(work.params)
    every = _rows(path, work.params)
    rows = _limited(every, work.limit_units)
    work.report.phase("compute")
    samples = []
    for done, row in enumerate(rows):
        samples.append(_sample(row, _tokens(work, path, row)))
        work.report.progress(done + 1, len(rows))
    yield "samples", pa.Table.from_pylist(samples, schema=arrow_schema("samples"))
    yield "sample_meta", pa.Table.from_pylist(list(_meta(rows, every, work.params)), schema=arrow_schema("sample_meta"))


# --- the file -----------------------------------------------------------------------------------------------------------


def _file(params: Csv) -> Path:
    path = locate(params.path)
    if not path.is_file():
        raise BadInput(f"{path} is a folder; name a CSV file in it.")
    return path


def _rows(path: Path, params: Csv) -> list[_Row]:
    lines = _lines(path)
    _, header = next(lines, (1, []))
    _check_header(path, header, params)
    rows = [_row(path, params, header, number, line, cells) for number, (line, cells) in enumerate(lines)]
    if not rows:
        raise DataError(f"{path}:1: there are no rows below the header. Add a row a sample.")
    return rows


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Each row's cells, with the line on which it begins; blank lines are passed over."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader, begun = csv.reader(file, strict=True), 1
        try:
            for cells in reader:
                if cells:
                    yield begun, cells
                begun = reader.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"{path}:{begun}: this is no CSV: {error}. Put double quotes around cells, and double those inside."
            ) from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path}:{begun}: near here the file is not UTF-8 ({error.reason}). Save it as UTF-8.") from None


def _check_header(path: Path, header: Sequence[str], params: Csv) -> None:
    if not header:
        raise DataError(f"{path}:1: the file is empty. Its first line names the columns, one of them '{params.text}'.")
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise DataError(f"{path}:1: there are {header.count(twice[0])} columns '{twice[0]}'. Give each its own name.")
    for field, name in (("text", params.text), ("unit", params.unit), *(("columns", name) for name in params.columns or ())):
        if name is not None and name not in header:
            raise DataError(
                f"{path}:1: {field}: there is no column '{name}'.{nearest(name, header)} Columns: {', '.join(header)}."
            )


def _row(path: Path, params: Csv, header: Sequence[str], number: int, line: int, cells: Sequence[str]) -> _Row:
    if len(cells) != len(header):
        raise DataError(
            f"{path}:{line}: this row has {len(cells)} cells, the header {len(header)}. "
            f"Put double quotes around a cell with commas or newlines in it."
        )
    named = dict(zip(header, cells, strict=True))
    for column in (params.text, params.unit):
        if column is not None and not named[column].strip():
            raise DataError(f"{path}:{line}: column '{column}' is empty here. Fill it in, or take the row out.")
    sample = f"{number:06d}"
    return _Row(sample, line, named[params.unit] if params.unit else sample, named)


def _limited(rows: Sequence[_Row], units: int | None) -> list[_Row]:
    """All rows of the first units, in the order of the file."""
    kept = set(list(dict.fromkeys(row.unit for row in rows))[:units])
    return [row for row in rows if row.unit in kept]


# --- tables -------------------------------------------------------------------------------------------------------------


def _tokens(work: Work, path: Path, row: _Row) -> Tokens:
    found: Tokens = work.model.tokenise(
        row.cells[work.params.text], chat=work.params.chat, name=f"{row.sample} ({path.name}:{row.line})"
    )
    return found


def _sample(row: _Row, tokens: Tokens) -> dict[str, Any]:
    digest = hashlib.sha256(tokens.text.encode()).hexdigest()
    return {
        "sample": row.sample,
        "unit": row.unit,
        "cluster": digest,
        "text": tokens.text,
        "token_ids": tokens.ids,
        "pieces": tokens.pieces,
        "spans": [],
        "prompt_hash": digest,
    }


def _meta(rows: Sequence[_Row], every: Sequence[_Row], params: Csv) -> Iterator[dict[str, Any]]:
    """What a column holds is decided by all rows of the file, so that a limit does not change it. Empty cells say nothing."""
    columns = params.columns if params.columns is not None else [c for c in every[0].cells if c not in (params.text, params.unit)]
    numeric = {column for column in columns if all(_is_number(row.cells[column]) for row in every if row.cells[column].strip())}
    for row in rows:
        for column in columns:
            cell = row.cells[column]
            if cell.strip():
                number = float(cell) if column in numeric else None
                yield {"sample": row.sample, "key": column, "number": number, "string": cell if number is None else None}


def _is_number(cell: str) -> bool:
    return NUMBER.fullmatch(cell.strip()) is not None and math.isfinite(float(cell))
