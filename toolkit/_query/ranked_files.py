"""All lines of a ranking with every statistic, for a file: as many as there are, in bounded memory.

The store keeps the statistics of a feature together, and a ranking lists features in another order.
So rows are first sorted into temporary files, one for each block of lines, and then each block is
put together by itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit._query.answers import frame
from toolkit._query.feature_rows import lines_of, stat_heads
from toolkit._query.ranking import RankedLines
from toolkit._query.run import Run

if TYPE_CHECKING:
    import polars as pl

BLOCK_LINES = 4_000
"""Lines that are put together at a time."""
MAX_BLOCKS = 250
"""The most temporary files that are open at once; a longer ranking has larger blocks."""
BATCH_ROWS = 200_000
"""Rows that are sorted into blocks at a time."""
OF_ALL_STAGES = ("verdict", "label")
"""Statistics that a line has from every stage."""
COLUMNS = ("space", "feature", "stat", "group", "number", "text", "comparison")


def ranked_parts(
    run: Run, ranking: RankedLines, lines: RankedLines, stage: str | None
) -> Iterator[pl.DataFrame]:
    """These lines of a ranking in order, a few thousand at a time, all with the same columns. Their
    statistics come from all stages, or from one if it is named.
    """
    import polars as pl
    import pyarrow as pa

    size = max(BLOCK_LINES, -(-lines.height // MAX_BLOCKS))
    with tempfile.TemporaryDirectory(prefix="toolkit-ranked-") as folder:
        rows, blocks = Path(folder) / "rows", Path(folder) / "blocks"
        rows.mkdir()
        blocks.mkdir()
        _sort_into_blocks(run, lines, stage, size, rows)
        kinds: dict[str, Any] = {}
        for number in range(-(-lines.height // size)):
            of_block = lines.rows(number * size, size)
            with pa.ipc.open_stream(rows / str(number)) as stream:
                entries = stream.read_all().to_pylist()
            described = lines_of(run, ranking.compared, of_block, entries)
            block = frame(described, stat_heads(described, (), "json"))
            for name, kind in block.schema.items():
                if kind != pl.Null:
                    kinds[name] = pl.String if pl.String in (kind, kinds.get(name)) else kind
            block.write_parquet(blocks / str(number))
            (rows / str(number)).unlink()
        heads = stat_heads([dict.fromkeys(kinds)], (), "json")
        kept = {name: kinds.get(name, pl.String) for name in heads}
        yield pl.DataFrame(schema=kept)
        for number in range(-(-lines.height // size)):
            block = pl.read_parquet(blocks / str(number))
            yield _with_columns(block, kept)


def _with_columns(block: pl.DataFrame, kinds: dict[str, Any]) -> pl.DataFrame:
    import polars as pl

    return block.select(
        (pl.col(name) if name in block.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in kinds.items()
    )


def _sort_into_blocks(
    run: Run, lines: RankedLines, stage: str | None, size: int, folder: Path
) -> None:
    """Write the rows about the features of each block of lines to the file of its number."""
    import pyarrow as pa

    writers: dict[int, Any] = {}
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with ExitStack() as open_files:
        for rows in _rows_of_blocks(run, lines, stage, size):
            for (number,), part in rows.partition_by(
                "block", as_dict=True, include_key=False
            ).items():
                table = part.to_arrow()
                if number not in writers:
                    path = str(folder / str(number))
                    writers[number] = open_files.enter_context(
                        pa.ipc.new_stream(path, table.schema, options=options)
                    )
                writers[number].write_table(table)


def _rows_of_blocks(
    run: Run, lines: RankedLines, stage: str | None, size: int
) -> Iterator[pl.DataFrame]:
    """The rows about features of these lines, each with the number of a block; rows that several
    blocks need come once for each.
    """
    import polars as pl

    stages, spaces = (pl.Series(lines.names[key], dtype=pl.String) for key in ("stage", "space"))
    wanted = lines.lines.select(
        pl.col("feature"),
        block=pl.int_range(pl.len()) // size,
        stage=stages.gather(lines.lines["stage"]),
        space=spaces.gather(lines.lines["space"]),
    ).unique()
    anywhere = wanted.drop("stage").unique()
    everywhere = pl.col("stat").is_in(OF_ALL_STAGES)
    for rows in _batches(run, stage):
        own = rows.filter(~everywhere).join(wanted, on=["stage", "space", "feature"])
        shared = rows.filter(everywhere).join(anywhere, on=["space", "feature"])
        yield pl.concat([own, shared.select(own.columns)])


def _batches(run: Run, stage: str | None) -> Iterator[pl.DataFrame]:
    """The rows of `features`, many at a time, with a column `stage`."""
    import polars as pl

    parts: list[pl.DataFrame] = []
    for name, batch in run.rows.stage_batches("features", COLUMNS, stage):
        parts.append(batch.with_columns(stage=pl.lit(name)))
        if sum(part.height for part in parts) >= BATCH_ROWS:
            yield pl.concat(parts)
            parts = []
    if parts:
        yield pl.concat(parts)
