"""What all sources of texts share: the params, the rows of a file, and the tables they become."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from toolkit.errors import DataError, nearest
from toolkit.parts import Params
from toolkit.samples.rows import metadata_row, sample_row
from toolkit.tables import arrow_schema
from toolkit.work import Rows, Work

from ._spans import from_marks, from_offsets

if TYPE_CHECKING:
    from toolkit.models import Span, Tokens

NUMBER = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
"""A text that is read as a number. With a leading zero it is a name (`007`)."""

Cell = str | float


class Texts(Params):
    """Which columns hold what, and how a text is presented to the model."""

    numbers_in_texts: ClassVar[bool] = False
    """Whether a text that looks like a number is read as one: every CSV cell is a text."""

    text: str = Field("text", min_length=1, description="The column that holds the text.")
    id: str | None = Field(
        None,
        min_length=1,
        description="The column with each sample's id, each once; without it, rows are numbered "
        "from 0.",
    )
    unit: str | None = Field(
        None,
        min_length=1,
        description="The column that names a sample's unit; without it, each row is one.",
    )
    row: str | None = Field(
        None,
        min_length=1,
        description="A metadata key to keep each row's number under, from 0 in the order of the "
        "file.",
    )
    label: str | None = Field(
        None,
        min_length=1,
        description="The column that holds a whole-number label; then every row needs one in "
        "`label_range`.",
    )
    label_range: tuple[int, int] = Field((0, 3), description="The lowest and the highest label.")
    chat: bool = Field(
        False, description="Put the model's chat template around each text, as a user's message."
    )
    spans: str | None = Field(
        None,
        min_length=1,
        description="The column of each text's spans, as character offsets: balance:17-20; "
        "goal:30-34.",
    )
    marks: bool = Field(
        False,
        description="Read marks in the texts, <span balance>$90</span>, and take them out.",
    )
    columns: tuple[str, ...] | None = Field(
        None,
        description="The columns that become metadata, next to the label; without it, all others.",
    )

    @field_validator("label_range")
    @classmethod
    def _check_label_range(cls, pair: tuple[int, int]) -> tuple[int, int]:
        if pair[0] >= pair[1]:
            raise ValueError(
                f"{pair[0]} is not below {pair[1]}; write the lowest label, then the highest"
            )
        return pair

    def named(self) -> Iterator[tuple[str, str]]:
        """Each param that names a column, and the column's name."""
        single = (
            ("text", self.text),
            ("id", self.id),
            ("unit", self.unit),
            ("label", self.label),
            ("spans", self.spans),
        )
        yield from ((field, name) for field, name in single if name is not None)
        yield from (("columns", name) for name in self.columns or ())

    def metadata(self, columns: Sequence[str]) -> list[str]:
        """The columns of the file that become metadata."""
        if self.columns is None:
            left_out = (self.text, self.id, self.unit, self.spans)
            return [column for column in columns if column not in left_out]
        return [column for column in columns if column in self.columns or column == self.label]


@dataclass(frozen=True)
class Row:
    """A row of a file: its location, for messages, and its cells by column; empty cells are left
    out.
    """

    where: str
    cells: dict[str, Cell]


@dataclass(frozen=True)
class Sample:
    """A checked row, with its id, its unit and its number."""

    id: str
    unit: str
    row: Row
    number: int


def samples_of(rows: Sequence[Row], params: Texts) -> list[Sample]:
    """The rows as samples; an empty text, a wrong label or a duplicate id is an error that names
    the row's location.
    """
    samples, locations = [], dict[str, str]()
    for number, row in enumerate(rows):
        _check_number(row, params.row)
        _check_text(row, params.text)
        _text_and_spans(row, params)
        _check_label(row, params)
        sample_id = _required(row, params.id) if params.id else f"{number:06d}"
        if sample_id in locations:
            raise DataError(
                f"{row.where}: column '{params.id}' holds '{sample_id}' again; it stands at "
                f"{locations[sample_id]} already. Give each its own id."
            )
        locations[sample_id] = row.where
        samples.append(
            Sample(
                sample_id, _required(row, params.unit) if params.unit else sample_id, row, number
            )
        )
    return samples


def tables(work: Work, all_samples: Sequence[Sample]) -> Rows:
    """Tokenise each text, and give its other columns as metadata: numbers where a whole column
    holds numbers.
    """
    import pyarrow as pa

    samples = _first_units(all_samples, work.limit_units)
    work.report.phase("compute")
    rows, split_spans = [], list[str]()
    for number, sample in enumerate(samples):
        tokens = _tokens(work, sample)
        split_spans += _split_spans(sample, tokens, work.params)
        rows.append(sample_row(sample.id, sample.unit, tokens))
        work.report.progress(number + 1, len(samples))
    _warn_of_split_spans(work, split_spans)
    yield "samples", pa.Table.from_pylist(rows, schema=arrow_schema("samples"))
    yield (
        "sample_meta",
        pa.Table.from_pylist(
            list(_meta(samples, all_samples, work.params)), schema=arrow_schema("sample_meta")
        ),
    )


def missing_column(where: str, field: str, name: str, columns: Sequence[str]) -> DataError:
    """The error for a column that a param names and the file does not have."""
    return DataError(
        f"{where}: {field}: there is no column '{name}'.{nearest(name, columns)} Columns: "
        f"{', '.join(columns)}."
    )


# --- what a row must hold -------------------------------------------------------------------------


def _check_number(row: Row, key: str | None) -> None:
    if key in row.cells:
        raise DataError(
            f"{row.where}: row: there is a column '{key}' already. Give the rows' numbers another "
            "key."
        )


def _check_text(row: Row, column: str) -> None:
    text = row.cells.get(column)
    if isinstance(text, float):
        raise DataError(
            f"{row.where}: column '{column}' holds the number {text:g}; expected a text. "
            f"Put quotes "
            "around it."
        )
    if text is None or not text.strip():
        raise _empty(row, column)


def _check_label(row: Row, params: Texts) -> None:
    if params.label is None:
        return
    low, high = params.label_range
    cell = row.cells.get(params.label)
    number = cell if isinstance(cell, float) else as_number(cell or "")
    if number is None or not number.is_integer() or not low <= number <= high:
        problem = "is empty" if cell is None else f"holds {_quoted(cell)}"
        raise DataError(
            f"{row.where}: column '{params.label}' {problem} here; a label is a whole number from "
            f"{low} to {high}. Correct it, or take the row out; a missing label is never a 0."
        )


def _required(row: Row, column: str) -> str:
    cell = row.cells.get(column)
    if cell is None:
        raise _empty(row, column)
    return cell if isinstance(cell, str) else number_text(cell)


def _empty(row: Row, column: str) -> DataError:
    return DataError(
        f"{row.where}: column '{column}' is empty here. Fill it in, or take the row out."
    )


def _quoted(cell: Cell) -> str:
    """A cell quoted for a message; a long one is cut."""
    text = cell if isinstance(cell, str) else number_text(cell)
    return f"'{text}'" if len(text) <= 40 else f"'{text[:40]}...'"


def as_number(cell: str) -> float | None:
    """The number that a text is, if it is one."""
    stripped = cell.strip()
    number = float(stripped) if NUMBER.fullmatch(stripped) else math.nan
    return number if math.isfinite(number) else None


def number_text(number: float) -> str:
    """A number as text: a whole number without a decimal point."""
    return f"{int(number)}" if number.is_integer() else repr(number)


# --- tables ---------------------------------------------------------------------------------------


def _first_units(samples: Sequence[Sample], units: int | None) -> list[Sample]:
    """All samples of the first units, in file order."""
    kept_units = set(list(dict.fromkeys(sample.unit for sample in samples))[:units])
    return [sample for sample in samples if sample.unit in kept_units]


def _tokens(work: Work, sample: Sample) -> Tokens:
    text, spans = _text_and_spans(sample.row, work.params)
    tokens: Tokens = work.model.tokenise(
        text, chat=work.params.chat, spans=spans, name=f"{sample.id} at {sample.row.where}"
    )
    return tokens


def _text_and_spans(row: Row, params: Texts) -> tuple[str, list[Span]]:
    """A row's text without marks, and its spans."""
    text = str(row.cells[params.text])
    plain, spans = from_marks(text, row.where) if params.marks else (text, [])
    cell = row.cells.get(params.spans) if params.spans else None
    if cell is not None:
        spans += from_offsets(str(cell), plain, row.where, str(params.spans))
    return plain, spans


def _split_spans(sample: Sample, tokens: Tokens, params: Texts) -> list[str]:
    """Spans whose edges lie inside a token: the whole token counts."""
    text, spans = _text_and_spans(sample.row, params)
    pieces = {name: "".join(tokens.pieces[start:end]) for name, start, end in tokens.spans}
    return [
        f"'{name}' of {sample.id} ({text[start:end]!r} becomes {pieces[name]!r})"
        for name, start, end in spans
        if name in pieces
        and len([span_name for span_name, _, _ in spans if span_name == name]) == 1
        if pieces[name].strip() != text[start:end].strip()
    ]


def _warn_of_split_spans(work: Work, split: Sequence[str]) -> None:
    if split:
        more = f" and {len(split) - 1} more" if len(split) > 1 else ""
        work.report.event(
            "warning",
            text=f"The tokeniser splits spans: {split[0]}{more}. A token counts as a whole.",
        )


def _meta(
    samples: Sequence[Sample], all_samples: Sequence[Sample], params: Texts
) -> Iterator[dict[str, Any]]:
    """All rows decide whether a column holds numbers, so that a limit does not change it. Empty
    cells are ignored.
    """
    columns = params.metadata(
        list(dict.fromkeys(column for sample in all_samples for column in sample.row.cells))
    )
    values = {
        column: [sample.row.cells[column] for sample in all_samples if column in sample.row.cells]
        for column in columns
    }
    numeric = {
        column
        for column, cells in values.items()
        if all(_number(cell, column, params) is not None for cell in cells)
    }
    for sample in samples:
        if params.row is not None:
            yield metadata_row(sample.id, params.row, float(sample.number))
        for column in columns:
            if column in sample.row.cells:
                cell = sample.row.cells[column]
                number = _number(cell, column, params) if column in numeric else None
                text = cell if isinstance(cell, str) else number_text(cell)
                yield metadata_row(sample.id, column, text if number is None else number)


MAX_LISTED_VALUES = 50
"""A key with more distinct values does not name groups; its values are not listed."""


def labels_of(samples: Sequence[Sample], params: Texts) -> dict[str, list[str] | None]:
    """The metadata keys of samples, each with its values as a spec would name them; None where
    there are too many to list.
    """
    values: dict[str, dict[str, None]] = {}
    for row in _meta(samples, samples, params):
        text = row["string"] if row["string"] is not None else number_text(row["number"])
        values.setdefault(row["key"], {})[text] = None
    return {
        key: list(value) if len(value) <= MAX_LISTED_VALUES else None
        for key, value in values.items()
    }


def _number(cell: Cell, column: str, params: Texts) -> float | None:
    """A cell as a number; a text counts only where the source holds texts alone, or as a label."""
    if isinstance(cell, float):
        return cell
    return as_number(cell) if params.numbers_in_texts or column == params.label else None
