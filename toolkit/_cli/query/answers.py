"""The answer to a query and how it is printed: a table for people, or JSON, CSV or a Parquet
file.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit._cli._text import (
    MAX_NUMBER,
    Styled,
    columns,
    json_option,
    layer_option,
    run_option,
    store_option,
)
from toolkit._query.text import Row, one_line, shown
from toolkit.terminal import echo, echo_data, echo_styled

if TYPE_CHECKING:
    import polars as pl

    from toolkit._query.run import Run


@dataclass(frozen=True)
class QueryOptions:
    """The options of every query. `file` is the path of the Parquet file."""

    run: str | None
    store: str | None
    form: str
    k: int
    file: Path | None = None


@dataclass(frozen=True)
class Answer:
    """The rows to show, their total number (None: more, not counted) and, if there are none, why.
    In the text table, columns in `shared` with one value in all rows are printed once above it, and
    `above` is printed before everything; `frame` has the rows for a Parquet file, where their types
    are known.
    """

    heads: Sequence[str]
    rows: Sequence[Row]
    total: int | None
    why: str
    shared: Sequence[str] = ()
    above: str = ""
    frame: pl.DataFrame | None = None


def answered(function: Callable[..., Answer]) -> Callable[..., None]:
    """Give a command the common options, and print its answer."""
    return run_option(_collecting(function))


def answered_in_full(function: Callable[..., Answer]) -> Callable[..., None]:
    """Like `answered`, for a command that shows all its rows unless `--k` is given."""
    return run_option(_collecting(function, k=MAX_NUMBER, k_shown="all"))


def answered_of_runs(function: Callable[..., Answer]) -> Callable[..., None]:
    """Like `answered`, for a command that takes its runs as arguments."""
    return _collecting(function)


def of_spaces(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that restrict it to some spaces: `space` and `layer`."""
    return click.option(
        "--space",
        metavar="ADDRESS",
        help="Only this space: its id, or its address without a feature index.",
    )(layer_option(function))


def _collecting(
    function: Callable[..., Answer], k: int = 20, k_shown: str | bool = True
) -> Callable[..., None]:
    @functools.wraps(function)
    def collected(
        store: str | None,
        as_json: bool,
        as_csv: bool,
        file: Path | None,
        k: int,
        run: str | None = None,
        **options: Any,
    ) -> None:
        chosen = [
            name for name, value in (("json", as_json), ("csv", as_csv), ("parquet", file)) if value
        ]
        if len(chosen) > 1:
            raise click.UsageError(
                " and ".join(f"--{name}" for name in chosen)
                + " cannot be combined; give one of them."
            )
        query = QueryOptions(run, store, chosen[0] if chosen else "text", k, file)
        show(function(query, **options), query)

    collected = click.option(
        "--k",
        default=k,
        show_default=k_shown,
        type=click.IntRange(1, MAX_NUMBER),
        help="The number of rows to show.",
    )(collected)
    path = click.Path(dir_okay=False, path_type=Path)
    collected = click.option(
        "--parquet", "file", metavar="FILE", type=path, help="Write the answer to a Parquet file."
    )(collected)
    collected = click.option("--csv", "as_csv", is_flag=True, help="Write CSV.")(collected)
    return store_option(json_option(collected))


def open_run(options: QueryOptions, name: str | None = None) -> Run:
    """The run that the options name, or the one of this name; notes about it go to stderr."""
    return open_named(options.store, name or options.run)


def open_named(store: str | None, name: str | None) -> Run:
    """The run of that name, else the newest; notes about it go to stderr."""
    from toolkit._query.run import open_run as opened

    run = opened(store, name)
    for note in run.notes:
        echo(note, err=True)
    return run


def show(answer: Answer, options: QueryOptions) -> None:
    """Print an answer in the requested format; notes go to stderr."""
    rows = [{head: _plain(row.get(head)) for head in answer.heads} for row in answer.rows]
    if options.form == "json":
        echo(json.dumps(rows, indent=1))
    elif options.form == "csv":
        echo_data(_csv(answer.heads, rows), nl=False)
    elif options.form == "parquet":
        _write_parquet(answer, options)
    else:
        echo_styled(
            "\n".join(
                part for part in (answer.above, _table(answer, rows) if rows else "") if part
            ),
            nl=bool(answer.above or rows),
        )
    if not rows:
        echo(answer.why, err=True)
    elif answer.total is None:
        echo(f"{len(rows):,} rows, and there are more: --k N", err=True)
    elif answer.total > len(rows):
        echo(f"{len(rows):,} of {answer.total:,} rows; more: --k N", err=True)


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: null for NaN and infinity, text for unknown types."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _write_parquet(answer: Answer, options: QueryOptions) -> None:
    """Write the rows with infinite numbers and NaN as they are: Parquet has them."""
    import polars as pl

    from toolkit.errors import BadInput

    frame = answer.frame
    if frame is None:
        rows = [{head: row.get(head) for head in answer.heads} for row in answer.rows]
        frame = pl.DataFrame(
            rows, dict.fromkeys(answer.heads), infer_schema_length=None, strict=False
        )
    try:
        frame.write_parquet(options.file or "")
    except OSError as error:
        raise BadInput(
            f"--parquet {options.file}: the file cannot be written: {error}. Name a file in an "
            "existing folder."
        ) from None


def _csv(heads: Sequence[str], rows: Sequence[Row]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, heads, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _table(answer: Answer, rows: Sequence[Row]) -> str:
    """Aligned columns, numbers to the right; columns without any value are left out."""
    once = [head for head in answer.shared if len({row[head] for row in rows}) == 1]
    heads = [
        head
        for head in answer.heads
        if head not in once and any(row[head] is not None for row in rows)
    ]
    right = [
        head for head in heads if all(isinstance(row[head], int | float | None) for row in rows)
    ]
    shared = [
        f"{head}: {one_line(shown(rows[0][head]))}" for head in once if rows[0][head] is not None
    ]
    cells = [[_cell(row[head]) for head in heads] for row in rows]
    return "".join(f"{words}\n" for words in ["   ".join(shared)] if words) + columns(
        heads, cells, right=right
    )


def _cell(value: Any) -> str:
    return value if isinstance(value, Styled) else one_line(shown(value))
